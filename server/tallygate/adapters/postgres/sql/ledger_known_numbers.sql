-- Read under which numbers events of these meters are stored. Arrays run in parallel.
select
    event.tenant_id, event.event_id, event.source_id, event.source_lane, event.source_seq
from unnest($1::text[], $2::text[], $3::text[]) as asked (tenant_id, event_id, meter)
join tallygate.event_key as key using (tenant_id, event_id)
join tallygate.usage_event as event
    on event.tenant_id = key.tenant_id
    and event.meter = asked.meter
    and event.event_time = key.event_time
    and event.event_id = key.event_id
