-- Sets rows aside that were refused for good, with the reason; counts them.
with gone as (
    delete from tallygate.captured as held
    using unnest($1::bigint[], $2::text[], $3::text[]) as told (captured_id, reason, detail)
    where held.captured_id = told.captured_id and held.lease = $4::uuid
    returning held.*, told.reason, told.detail
),
kept as (
    insert into tallygate.capture_rejected (
        captured_id, event_id, capture_id, tenant_id, meter, amount, captured_at, dimensions,
        reason, detail
    )
    select
        captured_id, event_id, capture_id, tenant_id, meter, amount, captured_at, dimensions,
        reason, left(detail, 1000)
    from gone
    returning 1
)
select count(*) from kept
