-- Write the audit of a reset, unless another call has written it.
insert into tallygate.limit_reset (
    tenant_id, operation_id, limit_id, scope, used_before, used_after, reason, actor, reset_at
) values ($1, $2, $3, $4, $5, $6, $7, $8, tallygate.instant($9))
on conflict do nothing
