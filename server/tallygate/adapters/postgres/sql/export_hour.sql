-- Read the rollup by hour in the order of its key, of one tenant or all, through a cursor.
select
    tenant_id, meter, tallygate.microseconds(bucket) as bucket,
    count, sum::text as sum, max, min
from tallygate.usage_hour
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or usage_hour.bucket >= tallygate.instant($3))
    and ($4::bigint is null or usage_hour.bucket < tallygate.instant($4))
order by tenant_id, meter, usage_hour.bucket
