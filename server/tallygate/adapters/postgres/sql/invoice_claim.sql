-- Take periods that are due to be invoiced, the first of each tenant, until the lease is over.
with free as (
    select due.tenant_id, due.start_at from tallygate.invoice_due as due
    where due.next_at <= tallygate.instant($1::bigint)
        and not exists (
            select from tallygate.invoice_due as earlier
            where earlier.tenant_id = due.tenant_id and earlier.start_at < due.start_at
        )
    order by due.next_at, due.tenant_id
    limit $2
    for update skip locked
)
update tallygate.invoice_due as due
set next_at = tallygate.instant($1 + $3::bigint), token = $4::uuid, attempts = due.attempts + 1
from free
where due.tenant_id = free.tenant_id and due.start_at = free.start_at
returning due.tenant_id, tallygate.microseconds(due.start_at) as start_us,
    tallygate.microseconds(due.end_at) as end_us, due.revision, due.attempts
