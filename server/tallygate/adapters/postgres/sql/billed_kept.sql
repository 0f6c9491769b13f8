-- Read a meter's events of a tenant by their time, through a cursor, but for late ones that are
-- billed by periods that begin after $5, or await a revision.
select
    tenant_id, event_id, meter, amount, operation_id,
    tallygate.microseconds(event_time) as event_time_us,
    tallygate.microseconds(received_at) as received_at_us,
    source_id, source_lane, source_seq,
    subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
    dimensions::text as dimensions, refund_of, reservation_id
from tallygate.usage_event as event
where tenant_id = $1::text and meter = $2::text
    and event_time >= tallygate.instant($3::bigint) and event_time < tallygate.instant($4::bigint)
    and not exists (
        select from tallygate.late_usage as late
        where late.tenant_id = $1 and late.event_id = event.event_id
            and (late.awaited or late.allocated_start > tallygate.instant($5::bigint))
    )
order by event_time, event_id collate "C"
