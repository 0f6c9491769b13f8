-- Read events by their time, tenant and id, of one tenant or all, through a cursor.
select
    tenant_id, event_id, meter, amount,
    tallygate.microseconds(event_time) as event_time,
    tallygate.microseconds(received_at) as received_at,
    operation_id, source_id, source_lane, source_seq, counter_epoch, schema_version,
    subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
    dimensions::text as dimensions, metadata::text as metadata, refund_of, reservation_id
from tallygate.usage_event
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or usage_event.event_time >= tallygate.instant($3))
    and ($4::bigint is null or usage_event.event_time < tallygate.instant($4))
order by usage_event.event_time, tenant_id, event_id
