-- Read a rollup's bucket of $3 (minute, hour or day) at an instant, and what its events come to.
with asked as (
    select
        date_trunc($3::text, tallygate.instant($4::bigint), 'UTC') as bucket,
        date_trunc($3, tallygate.instant($4), 'UTC') + ('1 ' || $3)::interval as until
),
rollup as (
    select count, sum from tallygate.usage_minute
    where $3 = 'minute' and tenant_id = $1::text and meter = $2::text
        and bucket = (select bucket from asked)
    union all
    select count, sum from tallygate.usage_hour
    where $3 = 'hour' and tenant_id = $1 and meter = $2 and bucket = (select bucket from asked)
    union all
    select count, sum from tallygate.usage_day
    where $3 = 'day' and tenant_id = $1 and meter = $2 and bucket = (select bucket from asked)
)
select
    tallygate.microseconds((select bucket from asked)) as bucket_us,
    (select count from rollup) as count, (select sum from rollup) as sum,
    count(*) filter (where refund_of = '') as events_count,
    coalesce(sum(amount), 0) as events_sum
from tallygate.usage_event
where tenant_id = $1 and meter = $2
    and event_time >= (select bucket from asked) and event_time < (select until from asked)
