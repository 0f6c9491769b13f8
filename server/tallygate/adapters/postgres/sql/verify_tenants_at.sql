-- Read tenants as they were declared at an instant.
select distinct on (tenant_id) tenant_id, definition::text as definition
from tallygate.tenant_history
where tenant_id = any ($1::text[]) and effective_at <= tallygate.instant($2::bigint)
order by tenant_id, version desc
