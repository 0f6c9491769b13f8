-- Read what was done to a period by hand.
select action, actor, reason, tallygate.microseconds(done_at) as done_us
from tallygate.period_action
where tenant_id = $1 and start_at = tallygate.instant($2::bigint)
order by id
