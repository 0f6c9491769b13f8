-- Note why a period that was taken is not invoiced; return whether that is new.
update tallygate.invoice_due as due
set held = $4, detail = $5, next_at = tallygate.instant($6::bigint), token = null,
    held_at = case when due.held = $4 then due.held_at else tallygate.instant($7::bigint) end
from (
    select held from tallygate.invoice_due
    where tenant_id = $1 and start_at = tallygate.instant($2::bigint)
) as before
where due.tenant_id = $1 and due.start_at = tallygate.instant($2) and due.token = $3::uuid
returning before.held <> $4 as told
