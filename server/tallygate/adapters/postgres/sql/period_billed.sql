-- Read what was billed of a meter's period before the one that starts at $5: what revision $4 was
-- frozen with, and what others adjusted of it. No start is all before the first period.
select grouped, sum(quantity) as quantity
from (
    select total.grouped, total.quantity
    from tallygate.period_total as total
    where total.tenant_id = $1 and total.meter = $2
        and total.start_at = tallygate.instant($3::bigint) and total.revision = $4
    union all
    select adjusted.grouped, adjusted.quantity
    from tallygate.period_adjustment as adjusted
    where adjusted.tenant_id = $1 and adjusted.meter = $2
        and adjusted.closed_start is not distinct from tallygate.instant($3)
        and adjusted.start_at < tallygate.instant($5::bigint)
) as billed
group by grouped
