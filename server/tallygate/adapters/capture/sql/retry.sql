-- Puts what was refused into the outbox again, under its event ids; counts it. '' is any reason.
with gone as (
    delete from tallygate.capture_rejected where $1::text in ('', reason)
    returning *
),
back as (
    insert into tallygate.captured
        (event_id, capture_id, tenant_id, meter, amount, captured_at, dimensions)
    select event_id, capture_id, tenant_id, meter, amount, captured_at, dimensions from gone
    returning 1
)
select count(*) from back
