-- Read what a revision and those before it bill of periods that were closed before.
select meter, grouped, aggregation, count, quantity,
    tallygate.microseconds(closed_start) as closed_start_us
from tallygate.period_adjustment
where tenant_id = $1 and start_at = tallygate.instant($2::bigint) and revision <= $3
order by closed_start nulls first, meter, grouped
