-- Compare what dropped months came to, with what came since, with the rollups by day and the keys.
-- Months are joined by what they are equal to, so that each table is read once, whatever their
-- number; and none is where no month was dropped.
with kept as (
    select dropped.month, usage.tenant_id, usage.meter, usage.events, usage.count, usage.sum,
        usage.max, usage.min
    from tallygate.month_dropped as dropped
    join tallygate.month_archive_usage as usage using (archive_id)
    where $1::text is null or usage.tenant_id = $1
    union all
    select dropped.month, event.tenant_id, event.meter, count(*),
        count(*) filter (where event.refund_of = ''), sum(event.amount),
        coalesce(max(event.amount) filter (where event.refund_of = ''), 0),
        coalesce(min(event.amount) filter (where event.refund_of = ''), 0)
    from tallygate.month_dropped as dropped
    join tallygate.usage_event as event
        on date_trunc('month', event.event_time, 'UTC') = dropped.month
    where $1 is null or event.tenant_id = $1
    group by 1, 2, 3
),
expected as (
    select month, tenant_id, meter, sum(events) as events, sum(count) as count, sum(sum) as sum,
        coalesce(max(max) filter (where count > 0), 0) as max,
        coalesce(min(min) filter (where count > 0), 0) as min
    from kept
    group by 1, 2, 3
),
rolled as (
    select dropped.month, rollup.tenant_id, rollup.meter,
        sum(rollup.count) as count, sum(rollup.sum) as sum,
        coalesce(max(rollup.max) filter (where rollup.count > 0), 0) as max,
        coalesce(min(rollup.min) filter (where rollup.count > 0), 0) as min
    from tallygate.month_dropped as dropped
    join tallygate.usage_day as rollup
        on date_trunc('month', rollup.bucket, 'UTC') = dropped.month
    where $1 is null or rollup.tenant_id = $1
    group by 1, 2, 3
),
named as (
    select dropped.month, named.tenant_id, count(*) as keys
    from tallygate.month_dropped as dropped
    join tallygate.event_key as named
        on date_trunc('month', named.event_time, 'UTC') = dropped.month
    where $1 is null or named.tenant_id = $1
    group by 1, 2
)
select
    tallygate.microseconds(month) as month_us, tenant_id, coalesce(meter, '') as meter,
    figure, expected, found
from (
    select month, tenant_id, meter, figures.*
    from expected full join rolled using (month, tenant_id, meter),
    lateral (values
        ('count', coalesce(expected.count, 0), coalesce(rolled.count, 0)),
        ('sum', coalesce(expected.sum, 0), coalesce(rolled.sum, 0)),
        ('max', coalesce(expected.max, 0), coalesce(rolled.max, 0)),
        ('min', coalesce(expected.min, 0), coalesce(rolled.min, 0))
    ) as figures (figure, expected, found)
    union all
    select month, tenant_id, '', 'keys', coalesce(events, 0), coalesce(keys, 0)
    from (
        select month, tenant_id, sum(events) as events from expected group by 1, 2
    ) as whole full join named using (month, tenant_id)
) as compared
where expected <> found
order by month, tenant_id, meter, figure
