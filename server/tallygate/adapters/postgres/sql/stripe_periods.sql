-- Read which billing periods tenants have between two instants.
select
    tenant_id,
    tallygate.microseconds(start_at) as start_us,
    tallygate.microseconds(end_at) as end_us
from tallygate.billing_period
where
    tenant_id = any($1::text[])
    and end_at > tallygate.instant($2::bigint)
    and start_at < tallygate.instant($3::bigint)
order by tenant_id, start_at
