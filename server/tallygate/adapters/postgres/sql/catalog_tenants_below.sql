-- Read the tenants whose parent is one of these, as last written.
select tenant_id from tallygate.tenant
where definition ->> 'parent' = any ($1::text[]) order by tenant_id
