-- Read by which rules a sealed revision is folded, and of meters with late events in it, which.
select rule.meter, rule.definition::text as definition, rule.percentile_ppm,
    exists (
        select from tallygate.late_event as late
        where late.tenant_id = rule.tenant_id and late.allocated_start = rule.start_at
            and late.allocated_revision = $3 and late.meter = rule.meter
            and late.closed_start = rule.start_at
    ) as late
from tallygate.period_rule as rule
where rule.tenant_id = $1 and rule.start_at = tallygate.instant($2::bigint)
order by rule.meter
