-- Read a page of tenants as a range of versions left them, whatever later versions made of them.
select tenant.version, tenant.tenant_id, left_as.definition::text as definition
from tallygate.tenant as tenant
cross join lateral (
    select history.definition from tallygate.tenant_history as history
    where history.tenant_id = tenant.tenant_id
        and history.version > $1 and history.version <= $2
    order by history.version desc limit 1
) as left_as
where tenant.version > $1 and (tenant.version, tenant.tenant_id) > ($3, $4::text)
order by tenant.version, tenant.tenant_id limit $5
