-- Note where the calls of events were in traces, and forget some of those that are too old to find.
-- What another ingester is about to forget is left to it.
with old as (
    select tenant_id, event_id
    from tallygate.event_trace
    where received_at < now() - $5::integer * interval '1 day'
    order by received_at
    limit 2 * cardinality($1::text[])
    for update skip locked
),
forgotten as (
    delete from tallygate.event_trace using old
    where event_trace.tenant_id = old.tenant_id and event_trace.event_id = old.event_id
)
insert into tallygate.event_trace (tenant_id, event_id, received_at, trace_context)
select
    noted.tenant_id, noted.event_id, tallygate.instant(noted.received_us), noted.trace_context
from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
    as noted (tenant_id, event_id, received_us, trace_context)
on conflict do nothing
