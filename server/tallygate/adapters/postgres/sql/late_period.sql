-- Read the period of a tenant that holds an instant, if it has ended.
select tallygate.microseconds(start_at) as start_us, tallygate.microseconds(end_at) as end_us
from (
    select start_at, end_at, state from tallygate.billing_period
    where tenant_id = $1 and start_at <= tallygate.instant($2::bigint)
    order by start_at desc limit 1
) as period
where end_at > tallygate.instant($2) and state <> 'open'
