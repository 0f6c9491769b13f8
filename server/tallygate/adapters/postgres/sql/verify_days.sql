-- Compare a month's minutes, added up by day, with the rollup by day; return what differs.
with minute as (
    select
        tenant_id, meter, date_trunc('day', bucket, 'UTC') as bucket,
        sum(count)::bigint as count,
        sum(sum) as sum,
        coalesce(max(max) filter (where count > 0), 0) as max,
        coalesce(min(min) filter (where count > 0), 0) as min
    from tallygate.usage_minute
    where bucket >= tallygate.instant($1::bigint) and bucket < tallygate.instant($2::bigint)
        and ($3::text is null or tenant_id = $3)
    group by 1, 2, 3
),
rolled as (
    select tenant_id, meter, bucket, count, sum, max, min from tallygate.usage_day
    where bucket >= tallygate.instant($1::bigint) and bucket < tallygate.instant($2::bigint)
        and ($3::text is null or tenant_id = $3)
)
select
    tenant_id, meter, tallygate.microseconds(bucket) as bucket_us,
    minute.count as fine_count, minute.sum as fine_sum,
    minute.max as fine_max, minute.min as fine_min,
    rolled.count as coarse_count, rolled.sum as coarse_sum,
    rolled.max as coarse_max, rolled.min as coarse_min
from minute full join rolled using (tenant_id, meter, bucket)
where (minute.count, minute.sum, minute.max, minute.min)
    is distinct from (rolled.count, rolled.sum, rolled.max, rolled.min)
