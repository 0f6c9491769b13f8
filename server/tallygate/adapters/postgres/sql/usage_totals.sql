-- Read usage per meter of all tenants asked for, over a stretch of whole minutes.
select meter, count(distinct tenant_id) as tenants,
    sum(count)::bigint as count, sum(sum) as sum
from tallygate.usage_minute
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or bucket >= tallygate.instant($3))
    and ($4::bigint is null or bucket < tallygate.instant($4))
group by meter
order by meter
