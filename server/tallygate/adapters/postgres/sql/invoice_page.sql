-- Read what invoices there are, of a tenant or of all, the newest first, those before a number.
select
    number, tenant_id, tallygate.microseconds(period_start) as period_start_us,
    tallygate.microseconds(period_end) as period_end_us, revision, currency,
    subtotal, discounts, credits, total, document_sha256, reason, actor,
    tallygate.microseconds(created_at) as created_at_us
from tallygate.invoice
where ($1::text is null or tenant_id = $1) and ($2::bigint = 0 or number < $2)
order by number desc
limit $3
