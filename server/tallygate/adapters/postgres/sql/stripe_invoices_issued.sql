-- Read issued invoices that an account was not told of, by number, of the last 70 days.
select
    invoice.number,
    invoice.tenant_id,
    tallygate.microseconds(invoice.period_start) as start_us,
    invoice.revision
from tallygate.invoice as invoice
where
    invoice.number > $2::bigint
    and invoice.period_start >= tallygate.instant($3::bigint)
    and invoice.created_at > now() - interval '70 days'
    and not exists (
        select from tallygate.stripe_invoice as noted
        where noted.destination = $1::text and noted.number = invoice.number
    )
order by invoice.number
limit $4::integer
