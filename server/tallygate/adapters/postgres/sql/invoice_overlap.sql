-- Read the first period with an invoice of a tenant's that overlaps a stretch and begins elsewhere.
select
    tallygate.microseconds(period_start) as start_us, tallygate.microseconds(period_end) as end_us
from (
    select distinct on (period_start) period_start, period_end from tallygate.invoice
    where tenant_id = $1
    order by period_start, revision desc
) as newest
where period_start <> tallygate.instant($2::bigint)
    and period_start < tallygate.instant($3::bigint) and period_end > tallygate.instant($2)
order by period_start
limit 1
