-- Read events by when they were accepted, through a cursor: sorted once, whatever their number.
select
    tenant_id, event_id, meter, amount, operation_id,
    tallygate.microseconds(event_time) as event_time_us,
    tallygate.microseconds(received_at) as received_at_us,
    source_id, source_lane, source_seq,
    subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
    dimensions::text as dimensions, refund_of, reservation_id
from tallygate.usage_event
where ($1::text is null or tenant_id = $1)
    and ($2::bigint is null or received_at >= tallygate.instant($2))
    and ($3::bigint is null or received_at < tallygate.instant($3))
    -- An event's time is at most minutes after its acceptance: later months are not looked at.
    and ($3::bigint is null or event_time < tallygate.instant($3) + interval '1 hour')
order by received_at, source_id, source_lane, source_seq
