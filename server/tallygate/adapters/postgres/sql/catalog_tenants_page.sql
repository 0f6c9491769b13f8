-- Read a page of tenants by id.
select definition::text as definition from tallygate.tenant
where tenant_id > coalesce($1::text, '') order by tenant_id limit $2
