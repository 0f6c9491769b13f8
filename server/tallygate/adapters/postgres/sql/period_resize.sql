-- Give open periods, the newest of their tenants, other ends. Arrays run in parallel.
update tallygate.billing_period as period set end_at = tallygate.instant(span.end_us)
from unnest($1::text[], $2::bigint[], $3::bigint[]) as span (tenant_id, start_us, end_us)
where period.tenant_id = span.tenant_id and period.start_at = tallygate.instant(span.start_us)
    and period.state = 'open'
    and not exists (
        select from tallygate.billing_period as later
        where later.tenant_id = period.tenant_id and later.start_at > period.start_at
    )
