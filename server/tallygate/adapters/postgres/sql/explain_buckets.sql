-- Read the rollups by minute, hour and day that an event of that time is part of.
select 'minute' as kind, tallygate.microseconds(bucket) as bucket_us, count, sum
from tallygate.usage_minute
where tenant_id = $1::text and meter = $2::text
    and bucket = date_trunc('minute', tallygate.instant($3::bigint), 'UTC')
union all
select 'hour', tallygate.microseconds(bucket), count, sum
from tallygate.usage_hour
where tenant_id = $1 and meter = $2
    and bucket = date_trunc('hour', tallygate.instant($3), 'UTC')
union all
select 'day', tallygate.microseconds(bucket), count, sum
from tallygate.usage_day
where tenant_id = $1 and meter = $2
    and bucket = date_trunc('day', tallygate.instant($3), 'UTC')
