-- Read a revision of the invoice of a tenant's period, the newest for 0.
select
    tenant_id, tallygate.microseconds(period_start) as period_start_us, revision,
    document, document_sha256, reason, actor, tallygate.microseconds(created_at) as created_at_us
from tallygate.invoice
where tenant_id = $1 and period_start = tallygate.instant($2::bigint)
    and ($3::integer = 0 or revision = $3)
order by revision desc
limit 1
