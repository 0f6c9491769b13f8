-- Read the closings of a period that are complete.
select revision, cause, tallygate.microseconds(closed_at) as closed_us, events, digest
from tallygate.period_revision
where tenant_id = $1 and start_at = tallygate.instant($2::bigint)
order by revision
