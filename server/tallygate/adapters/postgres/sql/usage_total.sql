-- Read usage per tenant and meter over a stretch of whole minutes, a page at a time.
select tenant_id, meter, 0::bigint as bucket_us,
    sum(count)::bigint as count, sum(sum) as sum,
    coalesce(max(max) filter (where count > 0), 0) as max,
    coalesce(min(min) filter (where count > 0), 0) as min
from tallygate.usage_minute
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or bucket >= tallygate.instant($3))
    and ($4::bigint is null or bucket < tallygate.instant($4))
    and ($5::text is null or (tenant_id, meter) > ($5, $6::text))
    and $7::bigint is not distinct from $7
group by tenant_id, meter
order by tenant_id, meter
limit $8::integer
