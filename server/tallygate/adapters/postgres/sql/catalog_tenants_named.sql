-- Read the tenants of these names.
select definition::text as definition from tallygate.tenant where tenant_id = any ($1::text[])
