-- Read the usage of a tenant by hour, of one meter or all, meter after meter.
select meter, tallygate.microseconds(bucket) as bucket_us, sum as units, count as events
from tallygate.usage_hour
where tenant_id = $1::text and ($2::text is null or meter = $2)
    and bucket >= tallygate.instant($3::bigint) and bucket < tallygate.instant($4::bigint)
order by meter, bucket
