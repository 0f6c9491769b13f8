-- Read how many events the hours of a period have, as far as they have any.
select tallygate.microseconds(bucket) as hour_us, sum(count)::bigint as events
from tallygate.usage_hour
where tenant_id = $1 and bucket >= tallygate.instant($2::bigint) - interval '1 hour'
    and bucket < tallygate.instant($3::bigint)
group by bucket
order by bucket
