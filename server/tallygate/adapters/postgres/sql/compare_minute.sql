-- Read usage by minute of a stretch, of one tenant and meter or all, in the order of the keys.
select tenant_id, meter, tallygate.microseconds(bucket) as bucket_us, sum, count
from tallygate.usage_minute
where bucket >= tallygate.instant($1::bigint) and bucket < tallygate.instant($2::bigint)
    and ($3::text is null or tenant_id = $3)
    and ($4::text is null or meter = $4)
order by tenant_id, meter, bucket
