-- Count the buckets by minute that an export covers.
select count(*) from tallygate.usage_minute
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or bucket >= tallygate.instant($3))
    and ($4::bigint is null or bucket < tallygate.instant($4))
