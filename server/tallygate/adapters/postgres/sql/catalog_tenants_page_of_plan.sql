-- Read a page of tenants on one plan, by id.
select definition::text as definition from tallygate.tenant
where plan = $3::text and tenant_id > coalesce($1::text, '') order by tenant_id limit $2
