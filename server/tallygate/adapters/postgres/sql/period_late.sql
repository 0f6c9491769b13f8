-- Count what came late for a period, by where it went.
select placed, tallygate.microseconds(allocated_start) as allocated_start_us, allocated_revision,
    count(*) as events
from tallygate.late_event
where tenant_id = $1 and closed_start = tallygate.instant($2::bigint)
group by placed, allocated_start, allocated_revision
order by allocated_start, allocated_revision, placed
