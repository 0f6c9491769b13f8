-- Find events without their key or with another time, keys without their event, and events twice.
-- The key of an event that was dropped with its month stands by itself, and is counted elsewhere.
with event as (
    select tenant_id, event_id, count(*) as rows, min(event_time) as event_time
    from tallygate.usage_event
    where $1::text is null or tenant_id = $1
    group by 1, 2
),
named as (
    select tenant_id, event_id, event_time from tallygate.event_key
    where $1::text is null or tenant_id = $1
)
select
    tenant_id, event_id,
    coalesce(event.rows, 0) as events,
    case when named.event_time is null then 0 else 1 end as keys,
    tallygate.microseconds(coalesce(event.event_time, named.event_time)) as event_time_us,
    event.event_time is distinct from named.event_time as dated_otherwise
from event full join named using (tenant_id, event_id)
where (event.rows is distinct from 1 or event.event_time is distinct from named.event_time)
    and not (event.rows is null and exists (
        select from tallygate.month_dropped
        where month = date_trunc('month', named.event_time, 'UTC')
    ))
