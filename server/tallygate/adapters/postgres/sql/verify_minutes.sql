-- Compare a month's events, added up by minute, with the rollup by minute; return what differs.
with event as (
    select
        tenant_id, meter, date_trunc('minute', event_time, 'UTC') as bucket,
        count(*) filter (where refund_of = '') as count,
        sum(amount) as sum,
        coalesce(max(amount) filter (where refund_of = ''), 0) as max,
        coalesce(min(amount) filter (where refund_of = ''), 0) as min
    from tallygate.usage_event
    where event_time >= tallygate.instant($1::bigint) and event_time < tallygate.instant($2::bigint)
        and ($3::text is null or tenant_id = $3)
    group by 1, 2, 3
),
rolled as (
    select tenant_id, meter, bucket, count, sum, max, min from tallygate.usage_minute
    where bucket >= tallygate.instant($1::bigint) and bucket < tallygate.instant($2::bigint)
        and ($3::text is null or tenant_id = $3)
)
select
    tenant_id, meter, tallygate.microseconds(bucket) as bucket_us,
    event.count as fine_count, event.sum as fine_sum,
    event.max as fine_max, event.min as fine_min,
    rolled.count as coarse_count, rolled.sum as coarse_sum,
    rolled.max as coarse_max, rolled.min as coarse_min
from event full join rolled using (tenant_id, meter, bucket)
where (event.count, event.sum, event.max, event.min)
    is distinct from (rolled.count, rolled.sum, rolled.max, rolled.min)
