-- Read the closed periods with late usage that the one of $2 bills; what came for a time before the
-- first has its earliest instant, and the first period's start.
select tallygate.microseconds(coalesce(late.closed_start, late.earliest)) as start_us,
    tallygate.microseconds(coalesce(
        period.end_at,
        (select min(start_at) from tallygate.billing_period where tenant_id = $1)
    )) as end_us
from (
    select closed_start, min(event_time) as earliest from tallygate.late_event
    where tenant_id = $1 and allocated_start = tallygate.instant($2::bigint)
        and closed_start is distinct from allocated_start
    group by closed_start
) as late
left join tallygate.billing_period as period
    on period.tenant_id = $1 and period.start_at = late.closed_start
order by start_us
limit $3
