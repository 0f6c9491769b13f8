-- Read what each period was frozen with, by meter, as its newest sealed revision has it, and what
-- came late for it: billed by other periods, not billed yet, or for its own next revision; asks run
-- in parallel arrays. A sealed period without any has one row without a meter.
with sealed as (
    select ask.number, period.tenant_id, period.start_at, period.revision
    from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
        as ask (number, tenant_id, from_us, to_us)
    join tallygate.billing_period as period
        on period.tenant_id = ask.tenant_id and period.start_at = tallygate.instant(ask.from_us)
        and period.end_at = tallygate.instant(ask.to_us)
    where period.revision > 0
),
part as (
    -- Where a meter was frozen whole and by group, these are parts of the whole.
    select number, meter, 'frozen' as kind, null::numeric as quantity, count, sum, max, min
    from (
        select sealed.number, total.meter, total.count, total.sum, total.max, total.min,
            rank() over (
                partition by sealed.number, total.meter order by total.grouped <> ''
            ) as place
        from sealed
        join tallygate.period_total as total
            on total.tenant_id = sealed.tenant_id and total.start_at = sealed.start_at
            and total.revision = sealed.revision
    ) as total
    where place = 1
    union all
    -- Of an adjustment, what it bills counts, and not what it should have been.
    select number, meter, 'units', quantity, 0, 0, 0, 0
    from (
        select sealed.number, adjusted.meter, adjusted.quantity,
            rank() over (
                partition by sealed.number, adjusted.meter, adjusted.start_at
                order by adjusted.grouped <> ''
            ) as place
        from sealed
        join tallygate.period_adjustment as adjusted
            on adjusted.tenant_id = sealed.tenant_id and adjusted.closed_start = sealed.start_at
    ) as adjusted
    where place = 1
    union all
    select sealed.number, late.meter,
        case
            when late.allocated_start = sealed.start_at then 'pending'
            when late.allocated_revision > coalesce(other.revision, 0) then 'unbilled'
            else 'billed'
        end,
        null, (late.refund_of = '')::integer, late.amount, late.amount, late.amount
    from sealed
    join tallygate.late_event as late
        on late.tenant_id = sealed.tenant_id and late.closed_start = sealed.start_at
    left join tallygate.billing_period as other
        on other.tenant_id = late.tenant_id and other.start_at = late.allocated_start
    -- What the period's own revisions have is in its total by now.
    where late.allocated_start <> sealed.start_at or late.allocated_revision > sealed.revision
)
select sealed.number, coalesce(part.meter, '') as meter, coalesce(part.kind, '') as kind,
    coalesce(sum(part.quantity), 0) as quantity,
    coalesce(sum(part.count), 0)::bigint as count, coalesce(sum(part.sum), 0) as sum,
    coalesce(max(part.max) filter (where part.count > 0), 0) as max,
    coalesce(min(part.min) filter (where part.count > 0), 0) as min
from sealed left join part using (number)
group by sealed.number, part.meter, part.kind
order by sealed.number, part.meter, part.kind
