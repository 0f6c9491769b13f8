-- Read the number of the invoice that was written last of a tenant, 0 for none.
select coalesce(max(number), 0) from tallygate.invoice where tenant_id = $1
