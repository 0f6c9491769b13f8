-- Read the open periods that have ended, the longest ago first, and whether one follows already.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us,
    exists (
        select from tallygate.billing_period as later
        where later.tenant_id = period.tenant_id and later.start_at = period.end_at
    ) as followed
from tallygate.billing_period as period
where period.state = 'open' and period.end_at <= tallygate.instant($1::bigint)
order by period.end_at, period.tenant_id
limit $2
