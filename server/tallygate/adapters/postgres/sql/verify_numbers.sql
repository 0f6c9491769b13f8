-- Find events whose sequence number is not marked as seen, or is another event's too.
select
    event.tenant_id, event.event_id, event.source_id, event.source_lane, event.source_seq,
    coalesce(progress.seen @> event.source_seq, false) as seen
from tallygate.usage_event as event
left join tallygate.source_progress as progress using (source_id, source_lane)
where event.source_seq > 0
    and ($1::text is null or event.tenant_id = $1)
    and not coalesce(progress.seen @> event.source_seq, false)
