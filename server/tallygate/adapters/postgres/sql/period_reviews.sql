-- Read which earlier periods a period is to look at again, as they are: the newest revision that is
-- complete, 0 where there is none, from when until when. No start is all before the first period.
select review.meter, rule.definition::text as definition, rule.percentile_ppm,
    tallygate.microseconds(closed.start_at) as closed_us,
    tallygate.microseconds(coalesce(closed.end_at, (
        select min(first.start_at) from tallygate.billing_period as first
        where first.tenant_id = review.tenant_id
    ))) as end_us,
    coalesce((
        select max(made.revision) from tallygate.period_revision as made
        where made.tenant_id = closed.tenant_id and made.start_at = closed.start_at
    ), 0) as revision
from tallygate.period_review as review
join tallygate.period_rule as rule
    on rule.tenant_id = review.tenant_id and rule.start_at = review.closed_start
    and rule.meter = review.meter
left join tallygate.billing_period as closed
    on closed.tenant_id = review.tenant_id and closed.start_at = review.closed_start
where review.tenant_id = $1 and review.start_at = tallygate.instant($2::bigint)
order by review.closed_start, review.meter
