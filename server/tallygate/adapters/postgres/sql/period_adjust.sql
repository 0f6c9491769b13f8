-- Freeze what periods just sealed for the first time bill of others, closed before, where figures
-- tell it: by how much these would have been another by now, less what was billed of that already.
-- Arrays run in parallel, as in `period_freeze`; meters that a rule tells are left out.
with sealed as (
    select asked.tenant_id, tallygate.instant(asked.start_us) as start_at
    from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
    where asked.revision = 1
), part as (
    select late.tenant_id, late.allocated_start, late.closed_start, late.meter,
        1 as events, late.amount, late.refund_of = '' as used
    from sealed
    join tallygate.late_event as late
        on late.tenant_id = sealed.tenant_id and late.allocated_start = sealed.start_at
        and late.allocated_revision = 1
        and late.closed_start is distinct from late.allocated_start
    union all
    -- A revision that was made since has in its own totals part of what was adjusted before.
    select touched.tenant_id, sealed.start_at, nullif(touched.start_at, '-infinity'),
        touched.meter, 0, 0, false
    from sealed join tallygate.period_touched as touched using (tenant_id)
), late as (
    select part.tenant_id, part.allocated_start, part.closed_start, part.meter,
        sum(part.events) as events, count(*) filter (where part.used) as count,
        sum(part.amount) as sum,
        coalesce(max(part.amount) filter (where part.used), 0) as max,
        coalesce(min(part.amount) filter (where part.used), 0) as min
    from part
    where not exists (
        select from tallygate.period_rule as rule
        where rule.tenant_id = part.tenant_id and rule.meter = part.meter
            and rule.start_at = coalesce(part.closed_start, '-infinity')
    )
    group by part.tenant_id, part.allocated_start, part.closed_start, part.meter
), before as (
    select late.tenant_id, late.closed_start, late.meter,
        max(had.aggregation) as aggregation,
        max(had.max) filter (where had.count > 0) as max,
        min(had.min) filter (where had.count > 0) as min,
        coalesce(sum(had.max) filter (where had.frozen), 0)
            + coalesce(sum(had.quantity), 0) as max_billed,
        coalesce(sum(had.min) filter (where had.frozen), 0)
            + coalesce(sum(had.quantity), 0) as min_billed
    from late
    left join tallygate.billing_period as period
        on period.tenant_id = late.tenant_id and period.start_at = late.closed_start
    left join lateral (
        select total.aggregation, total.count, total.max, total.min, true as frozen,
            0::numeric as quantity
        from tallygate.period_total as total
        where total.tenant_id = late.tenant_id and total.start_at = late.closed_start
            and total.revision = period.revision and total.meter = late.meter
            and total.grouped = ''
        union all
        select adjusted.aggregation, adjusted.count, adjusted.max, adjusted.min, false,
            adjusted.quantity
        from tallygate.period_adjustment as adjusted
        where adjusted.tenant_id = late.tenant_id
            and adjusted.closed_start is not distinct from late.closed_start
            and adjusted.meter = late.meter and adjusted.grouped = ''
    ) as had on true
    group by late.tenant_id, late.closed_start, late.meter
), judged as (
    select late.*, before.max_billed, before.min_billed,
        case when late.count > 0 then greatest(late.max, before.max) else before.max end as highest,
        case when late.count > 0 then least(late.min, before.min) else before.min end as lowest,
        coalesce(before.aggregation, metered.aggregation, 'sum') as aggregation
    from late
    join before
        on before.tenant_id = late.tenant_id and before.meter = late.meter
        and before.closed_start is not distinct from late.closed_start
    left join unnest($4::text[], $5::text[]) as metered (name, aggregation)
        on metered.name = late.meter
), billed as (
    select judged.*, case aggregation
        when 'count' then count
        when 'max' then coalesce(highest, 0) - max_billed
        when 'min' then coalesce(lowest, 0) - min_billed
        when 'sum' then sum
    end as quantity
    from judged
)
insert into tallygate.period_adjustment (
    tenant_id, start_at, revision, closed_start, meter, aggregation, count, sum, max, min, quantity
)
select tenant_id, allocated_start, 1, closed_start, meter, aggregation, count, sum, max, min,
    quantity
from billed
where events > 0 or quantity <> 0
