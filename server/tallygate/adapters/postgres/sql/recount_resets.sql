-- Read when each counter of these tenants was last reset.
select
    tenant_id, limit_id, scope, tallygate.microseconds(max(reset_at)) as reset_at_us
from tallygate.limit_reset
where tenant_id = any($1::text[])
group by tenant_id, limit_id, scope
