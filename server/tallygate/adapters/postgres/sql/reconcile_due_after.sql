-- List newest revisions of invoices, written since $1, that were not reconciled since; those that
-- drifted or were unknown are due again after $2. A tenant's or everybody's.
select invoice.tenant_id, tallygate.microseconds(invoice.period_start) as start_us,
    tallygate.microseconds(invoice.period_end) as end_us, invoice.revision
from tallygate.invoice as invoice
where invoice.created_at >= tallygate.instant($1::bigint)
    and ($3::text is null or invoice.tenant_id = $3)
    and not exists (
        select from tallygate.invoice as later
        where later.tenant_id = invoice.tenant_id and later.period_start = invoice.period_start
            and later.revision > invoice.revision
    )
    and not exists (
        select from tallygate.reconcile_invoicing as done
        where done.tenant_id = invoice.tenant_id and done.period_start = invoice.period_start
            and done.kind = 'after' and done.revision = invoice.revision
            and (
                done.verdict not in ('drift', 'unknown')
                or done.reconciled_at > tallygate.instant($2::bigint)
            )
    )
order by invoice.created_at, invoice.tenant_id, invoice.period_start
limit $4::integer
