-- Read a balance's grants that are neither used up nor expired, by number.
select
    tenant_id, limit_id, seq, grant_id, amount, remaining, priority,
    tallygate.microseconds(starts_at) as starts_us,
    tallygate.microseconds(expires_at) as expires_us,
    tallygate.microseconds(created_at) as created_at_us,
    reason, actor
from tallygate.credit_remaining
where tenant_id = $1 and limit_id = $2 and remaining > 0
    and (expires_at is null or expires_at > tallygate.instant($3))
order by seq
limit $4
