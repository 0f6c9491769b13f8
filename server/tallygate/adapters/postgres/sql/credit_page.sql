-- Read a page of a tenant's grants, by limit and in burn-down order.
select
    tenant_id, limit_id, seq, grant_id, amount, remaining, priority,
    tallygate.microseconds(starts_at) as starts_us,
    tallygate.microseconds(expires_at) as expires_us,
    tallygate.microseconds(created_at) as created_at_us,
    reason, actor
from tallygate.credit_remaining
where tenant_id = $1
    and ($2::text is null or limit_id = $2)
    and ($3::text is null or (
        limit_id, priority, coalesce(tallygate.microseconds(expires_at), 9007199254740991), seq
    ) > ($3, $4::integer, $5::bigint, $6::bigint))
order by limit_id, priority, expires_at nulls last, seq
limit $7
