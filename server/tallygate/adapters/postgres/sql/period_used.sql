-- List the meters that a tenant has ever used before an instant.
select distinct meter from tallygate.usage_day
where tenant_id = $1::text and bucket < tallygate.instant($2::bigint)
    and ($3::text is null or meter = $3)
