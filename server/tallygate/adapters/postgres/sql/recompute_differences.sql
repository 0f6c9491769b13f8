-- Compare a day's rollups by minute, hour and day with its events; return what differs.
with event as (
    select
        kind, tenant_id, meter, date_trunc(kind, event_time, 'UTC') as bucket,
        count(*) filter (where refund_of = '') as count,
        sum(amount) as sum,
        coalesce(max(amount) filter (where refund_of = ''), 0) as max,
        coalesce(min(amount) filter (where refund_of = ''), 0) as min
    from tallygate.usage_event
    cross join (values ('minute'), ('hour'), ('day')) as grain (kind)
    where event_time >= tallygate.instant($1::bigint) and event_time < tallygate.instant($2::bigint)
        and ($3::text is null or tenant_id = $3)
        and ($4::text is null or meter = $4)
    group by 1, 2, 3, 4
),
every as (
    select 'minute' as kind, * from tallygate.usage_minute
    where bucket >= tallygate.instant($1) and bucket < tallygate.instant($2)
    union all
    select 'hour', * from tallygate.usage_hour
    where bucket >= tallygate.instant($1) and bucket < tallygate.instant($2)
    union all
    select 'day', * from tallygate.usage_day
    where bucket >= tallygate.instant($1) and bucket < tallygate.instant($2)
),
rolled as (
    select kind, tenant_id, meter, bucket, count, sum, max, min from every
    where ($3 is null or tenant_id = $3) and ($4 is null or meter = $4)
)
select
    kind, tenant_id, meter, tallygate.microseconds(bucket) as bucket_us,
    event.count as fine_count, event.sum as fine_sum,
    event.max as fine_max, event.min as fine_min,
    rolled.count as coarse_count, rolled.sum as coarse_sum,
    rolled.max as coarse_max, rolled.min as coarse_min
from event full join rolled using (kind, tenant_id, meter, bucket)
where (event.count, event.sum, event.max, event.min)
    is distinct from (rolled.count, rolled.sum, rolled.max, rolled.min)
order by tenant_id, meter, bucket, kind desc
