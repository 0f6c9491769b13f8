-- Take a period out that was invoiced, if it is still the one that was taken.
delete from tallygate.invoice_due
where tenant_id = $1 and start_at = tallygate.instant($2::bigint) and revision = $3
    and token = $4::uuid
returning true
