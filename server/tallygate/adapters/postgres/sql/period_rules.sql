-- Write by which rules meters $4, which take more than figures, are folded for periods just sealed
-- and for those that these bill late events of, unless that is settled. $1 to $3 run in parallel,
-- and so do $4 to $6.
with sealed as (
    select period.tenant_id, period.start_at, period.end_at, asked.revision
    from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
    join tallygate.billing_period as period
        on period.tenant_id = asked.tenant_id
        and period.start_at = tallygate.instant(asked.start_us)
), rule as (
    select name, definition::jsonb as definition, percentile_ppm,
        definition::jsonb ->> 'aggregation' = 'time_weighted' as levels
    from unnest($4::text[], $5::text[], $6::bigint[]) as rule (name, definition, percentile_ppm)
), late as (
    select late.tenant_id, coalesce(late.closed_start, '-infinity') as start_at, late.meter
    from sealed
    join tallygate.late_event as late
        on late.tenant_id = sealed.tenant_id and late.allocated_start = sealed.start_at
        and late.allocated_revision = sealed.revision
    union
    select touched.tenant_id, touched.start_at, touched.meter
    from tallygate.period_touched as touched
    where touched.tenant_id in (select tenant_id from sealed)
), wanted as (
    select sealed.tenant_id, sealed.start_at, rule.*
    from sealed cross join rule
    where sealed.revision = 1 and exists (
        select from tallygate.usage_minute as used
        where used.tenant_id = sealed.tenant_id and used.meter = rule.name
            and used.bucket < sealed.end_at
            -- A level lasts: of whatever age it is, the period is billed by it.
            and used.bucket >= case
                when rule.levels then '-infinity'::timestamptz else sealed.start_at
            end
    )
    union
    select late.tenant_id, late.start_at, rule.*
    from late join rule on rule.name = late.meter
    union
    select late.tenant_id, later.start_at, rule.*
    from late
    join rule on rule.name = late.meter and rule.levels
    join tallygate.billing_period as later
        on later.tenant_id = late.tenant_id and later.start_at > late.start_at
        and later.revision > 0
)
insert into tallygate.period_rule (tenant_id, start_at, meter, definition, percentile_ppm)
select tenant_id, start_at, name, definition, percentile_ppm
from wanted
where not exists (
    select from tallygate.period_total as total
    where total.tenant_id = wanted.tenant_id and total.start_at = wanted.start_at
        and total.meter = wanted.name
) and not exists (
    select from tallygate.period_adjustment as adjusted
    where adjusted.tenant_id = wanted.tenant_id and adjusted.meter = wanted.name
        and adjusted.closed_start is not distinct from nullif(wanted.start_at, '-infinity')
)
order by tenant_id, start_at, name
on conflict do nothing
