-- Read usage per tenant, meter and day, a page at a time.
select tenant_id, meter, tallygate.microseconds(bucket) as bucket_us, count, sum, max, min
from tallygate.usage_day
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or bucket >= tallygate.instant($3))
    and ($4::bigint is null or bucket < tallygate.instant($4))
    and ($5::text is null
        or (tenant_id, meter, bucket) > ($5, $6::text, tallygate.instant($7::bigint)))
order by tenant_id, meter, bucket
limit $8::integer
