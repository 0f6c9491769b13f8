-- Give ended periods their grace. Arrays run in parallel.
update tallygate.billing_period as period
set state = 'grace', end_at = tallygate.instant(span.end_us),
    due_at = tallygate.instant(span.due_us)
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
    as span (tenant_id, start_us, end_us, due_us)
where period.tenant_id = span.tenant_id and period.start_at = tallygate.instant(span.start_us)
    and period.state = 'open'
