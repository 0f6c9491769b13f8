-- Read what a period has billed of earlier ones by rules, as it was held against their revisions.
select adjusted.meter, adjusted.grouped, adjusted.quantity,
    tallygate.microseconds(adjusted.closed_start) as closed_us,
    tallygate.microseconds(coalesce(closed.end_at, (
        select min(first.start_at) from tallygate.billing_period as first
        where first.tenant_id = adjusted.tenant_id
    ))) as end_us,
    rule.definition::text as definition, rule.percentile_ppm,
    (adjusted.state ->> 'revision')::integer as revision,
    (adjusted.state ->> 'carried')::bigint as carried
from tallygate.period_adjustment as adjusted
join tallygate.period_rule as rule
    on rule.tenant_id = adjusted.tenant_id and rule.meter = adjusted.meter
    and rule.start_at = coalesce(adjusted.closed_start, '-infinity')
left join tallygate.billing_period as closed
    on closed.tenant_id = adjusted.tenant_id and closed.start_at = adjusted.closed_start
where adjusted.tenant_id = $1 and adjusted.start_at = tallygate.instant($2::bigint)
    and adjusted.state is not null
order by adjusted.closed_start nulls first, adjusted.meter, adjusted.grouped
