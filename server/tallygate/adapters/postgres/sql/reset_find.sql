-- Read the audit of one reset.
select
    tenant_id, operation_id, limit_id, scope, used_before, used_after, reason, actor,
    tallygate.microseconds(reset_at) as reset_at_us
from tallygate.limit_reset where tenant_id = $1 and operation_id = $2
