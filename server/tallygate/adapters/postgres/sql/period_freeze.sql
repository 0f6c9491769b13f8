-- Freeze the totals of revisions just sealed: the first of a period from its rollups, another from
-- the one before it and what came late; without meters that a rule tells. Arrays run in parallel;
-- $4 and $5 are meters and how they add up, others are sums.
with sealed as (
    select period.tenant_id, period.start_at, period.end_at, asked.revision
    from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
    join tallygate.billing_period as period
        on period.tenant_id = asked.tenant_id
        and period.start_at = tallygate.instant(asked.start_us)
), part as (
    select sealed.tenant_id, sealed.start_at, sealed.revision, used.meter, '' as grouped,
        null::text as aggregation, used.count, used.sum, used.max, used.min
    from sealed
    cross join lateral
        tallygate.usage_between(sealed.tenant_id, sealed.start_at, sealed.end_at) as used
    where sealed.revision = 1
    union all
    select sealed.tenant_id, sealed.start_at, sealed.revision, before.meter, before.grouped,
        before.aggregation, before.count, before.sum, before.max, before.min
    from sealed
    join tallygate.period_total as before
        on before.tenant_id = sealed.tenant_id and before.start_at = sealed.start_at
        and before.revision = sealed.revision - 1
    union all
    select sealed.tenant_id, sealed.start_at, sealed.revision, late.meter, '', null,
        count(*) filter (where late.refund_of = ''), sum(late.amount),
        coalesce(max(late.amount) filter (where late.refund_of = ''), 0),
        coalesce(min(late.amount) filter (where late.refund_of = ''), 0)
    from sealed
    join tallygate.late_event as late
        on late.tenant_id = sealed.tenant_id and late.allocated_start = sealed.start_at
        and late.allocated_revision = sealed.revision and late.closed_start = sealed.start_at
    group by sealed.tenant_id, sealed.start_at, sealed.revision, late.meter
)
insert into tallygate.period_total (
    tenant_id, start_at, revision, meter, grouped, aggregation, count, sum, max, min
)
select part.tenant_id, part.start_at, part.revision, part.meter, part.grouped,
    coalesce(max(part.aggregation), max(metered.aggregation), 'sum'),
    sum(part.count), sum(part.sum),
    coalesce(max(part.max) filter (where part.count > 0), 0),
    coalesce(min(part.min) filter (where part.count > 0), 0)
from part
left join unnest($4::text[], $5::text[]) as metered (name, aggregation)
    on metered.name = part.meter
where not exists (
    select from tallygate.period_rule as rule
    where rule.tenant_id = part.tenant_id and rule.start_at = part.start_at
        and rule.meter = part.meter
)
group by part.tenant_id, part.start_at, part.revision, part.meter, part.grouped
