-- Read one grant by the id that its maker gave it.
select
    tenant_id, limit_id, seq, grant_id, amount, remaining, priority,
    tallygate.microseconds(starts_at) as starts_us,
    tallygate.microseconds(expires_at) as expires_us,
    tallygate.microseconds(created_at) as created_at_us,
    reason, actor
from tallygate.credit_remaining
where tenant_id = $1 and limit_id = $2 and grant_id = $3
