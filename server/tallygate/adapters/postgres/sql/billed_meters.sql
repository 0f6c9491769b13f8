-- Read which meters a tenant used in the minutes of a stretch of time.
select distinct meter from tallygate.usage_minute
where tenant_id = $1
    and bucket > tallygate.instant($2::bigint) - interval '1 minute'
    and bucket < tallygate.instant($3::bigint)
order by meter
