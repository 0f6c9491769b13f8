-- List the months that events or rollups lie in, with the partition and how many events it has.
with event as (
    select
        date_trunc('month', event_time, 'UTC') as month,
        replace(tableoid::regclass::text, 'tallygate.', '') as leaf,
        count(*) as events
    from tallygate.usage_event
    where $1::text is null or tenant_id = $1
    group by 1, 2
),
rolled as (
    select date_trunc('month', bucket, 'UTC') as month from tallygate.usage_minute
    where $1::text is null or tenant_id = $1
    union
    select date_trunc('month', bucket, 'UTC') from tallygate.usage_day
    where $1::text is null or tenant_id = $1
)
select
    tallygate.microseconds(coalesce(event.month, rolled.month)) as from_us,
    tallygate.microseconds(coalesce(event.month, rolled.month) + interval '1 month') as to_us,
    coalesce(event.leaf, '') as leaf,
    coalesce(event.events, 0) as events,
    exists (
        select from tallygate.month_dropped as dropped
        where dropped.month = coalesce(event.month, rolled.month)
    ) as dropped
from event full join rolled using (month)
order by 1, 3
