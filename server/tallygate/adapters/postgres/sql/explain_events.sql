-- Read the events of an id, of one tenant or of all; the key's time finds the partition.
select
    event.tenant_id, event.event_id, event.meter, event.amount, event.operation_id,
    tallygate.microseconds(event.event_time) as event_time_us,
    tallygate.microseconds(event.received_at) as received_at_us,
    event.source_id, event.source_lane, event.source_seq, event.counter_epoch,
    event.refund_of, event.reservation_id,
    replace(event.tableoid::regclass::text, 'tallygate.', '') as leaf,
    coalesce(progress.seen @> event.source_seq, false) as seen,
    trace.trace_context
from tallygate.event_key as named
join tallygate.usage_event as event
    on event.tenant_id = named.tenant_id
    and event.event_id = named.event_id
    and event.event_time = named.event_time
left join tallygate.event_trace as trace
    on trace.tenant_id = named.tenant_id and trace.event_id = named.event_id
left join tallygate.source_progress as progress using (source_id, source_lane)
where named.event_id = $2::text and ($1::text is null or named.tenant_id = $1)
order by event.tenant_id
limit 100
