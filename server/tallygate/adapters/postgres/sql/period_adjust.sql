-- Freeze what periods just sealed for the first time bill of late events of others, closed before:
-- by how much those change what was frozen of these. Arrays run in parallel, as in `period_freeze`.
with late as (
    select late.tenant_id, late.allocated_start, late.closed_start, late.meter,
        count(*) filter (where late.refund_of = '') as count, sum(late.amount) as sum,
        coalesce(max(late.amount) filter (where late.refund_of = ''), 0) as max,
        coalesce(min(late.amount) filter (where late.refund_of = ''), 0) as min
    from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
    join tallygate.late_event as late
        on late.tenant_id = asked.tenant_id
        and late.allocated_start = tallygate.instant(asked.start_us)
        and late.allocated_revision = asked.revision
        and late.closed_start is distinct from late.allocated_start
    where asked.revision = 1
    group by late.tenant_id, late.allocated_start, late.closed_start, late.meter
), before as (
    select late.tenant_id, late.closed_start, late.meter,
        max(part.aggregation) as aggregation, coalesce(sum(part.count), 0) as count,
        max(part.max) filter (where part.count > 0) as max,
        min(part.min) filter (where part.count > 0) as min
    from (select distinct tenant_id, closed_start, meter from late) as late
    left join tallygate.billing_period as period
        on period.tenant_id = late.tenant_id and period.start_at = late.closed_start
    left join lateral (
        select total.aggregation, total.count, total.max, total.min
        from tallygate.period_total as total
        where total.tenant_id = late.tenant_id and total.start_at = late.closed_start
            and total.revision = period.revision and total.meter = late.meter
            and total.grouped = ''
        union all
        select adjusted.aggregation, adjusted.count, adjusted.max, adjusted.min
        from tallygate.period_adjustment as adjusted
        where adjusted.tenant_id = late.tenant_id
            and adjusted.closed_start is not distinct from late.closed_start
            and adjusted.meter = late.meter and adjusted.grouped = ''
    ) as part on true
    group by late.tenant_id, late.closed_start, late.meter
), judged as (
    select late.*, before.count as had, before.max as max_before, before.min as min_before,
        coalesce(before.aggregation, metered.aggregation, 'sum') as aggregation
    from late
    join before
        on before.tenant_id = late.tenant_id and before.meter = late.meter
        and before.closed_start is not distinct from late.closed_start
    left join unnest($4::text[], $5::text[]) as metered (name, aggregation)
        on metered.name = late.meter
)
insert into tallygate.period_adjustment (
    tenant_id, start_at, revision, closed_start, meter, aggregation, count, sum, max, min, quantity
)
select tenant_id, allocated_start, 1, closed_start, meter, aggregation, count, sum, max, min,
    case aggregation
        when 'count' then count
        when 'max' then case
            when count = 0 then 0
            when had = 0 then max
            else greatest(max, max_before) - max_before
        end
        when 'min' then case
            when count = 0 then 0
            when had = 0 then min
            else least(min, min_before) - min_before
        end
        when 'sum' then sum
    end
from judged
