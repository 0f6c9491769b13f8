-- Hold the lines of periods' newest invoices against usage, by meter; asks run in parallel arrays.
with ask as (
    select number, tenant_id, from_us, to_us
    from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
        as ask (number, tenant_id, from_us, to_us)
),
newest as (
    select distinct on (ask.number) ask.*, invoice.lines, invoice.created_at
    from ask join tallygate.invoice as invoice
        on invoice.tenant_id = ask.tenant_id
        and invoice.period_start = tallygate.instant(ask.from_us)
        and invoice.period_end = tallygate.instant(ask.to_us)
    order by ask.number, invoice.revision desc
),
-- What each price that is for all of a meter has of it in a part of the period.
priced as (
    select newest.number, line.value ->> 'meter' as meter,
        (line.value -> 'segment' ->> 'start_us')::bigint as start_us,
        (line.value -> 'segment' ->> 'end_us')::bigint as end_us,
        sum((line.value ->> 'quantity')::numeric) as units
    from newest cross join jsonb_array_elements(newest.lines) as line
    where line.value ->> 'kind' = 'usage' and line.value -> 'where' = '{}'
        and not line.value ? 'adjusts'
    group by 1, 2, 3, 4, line.value ->> 'plan', line.value ->> 'price_id'
),
used as (
    select part.number, part.meter, part.start_us, part.end_us,
        coalesce(sum(event.units), 0) as units,
        coalesce(sum(event.units) filter (where event.came_after and not event.elsewhere), 0)
            as late,
        coalesce(sum(event.units) filter (where event.came_after or event.elsewhere), 0)
            as missing
    from (select distinct number, meter, start_us, end_us from priced) as part
    join newest using (number)
    left join lateral (
        select case when part.meter = any ($5::text[])
            then (event.amount > 0)::integer else event.amount end as units,
            -- What is billed by another period, or awaits a revision, is taken off what was
            -- frozen, and once.
            late.event_id is not null
                and (late.awaited or late.allocated_start <> late.closed_start) as elsewhere,
            event.received_at >= newest.created_at or (
                late.event_id is not null and not exists (
                    select from tallygate.period_revision as revision
                    where revision.tenant_id = newest.tenant_id
                        and revision.start_at = late.allocated_start
                        and revision.revision >= late.allocated_revision
                        and revision.closed_at < newest.created_at
                )
            ) as came_after
        from tallygate.usage_event as event
        left join tallygate.late_usage as late
            on late.tenant_id = newest.tenant_id and late.meter = part.meter
            and late.event_time = event.event_time and late.event_id = event.event_id
            and late.closed_start = tallygate.instant(newest.from_us)
        where event.tenant_id = newest.tenant_id and event.meter = part.meter
            and event.event_time >= tallygate.instant(part.start_us)
            and event.event_time < tallygate.instant(part.end_us)
    ) as event on true
    group by 1, 2, 3, 4
),
-- Of several prices of a part, the one that is most off.
part as (
    select distinct on (used.number, used.meter, used.start_us) used.*, priced.units as invoiced
    from used join priced using (number, meter, start_us, end_us)
    order by used.number, used.meter, used.start_us,
        abs(priced.units - used.units + used.missing) desc, priced.units
)
select part.number, part.meter, sum(part.invoiced) as units, sum(part.late) as late,
    (
        select coalesce(sum(
            case when part.meter = any ($5) then (event.amount > 0)::integer else event.amount end
        ), 0)
        from newest join tallygate.usage_event as event
            on event.tenant_id = newest.tenant_id and event.meter = part.meter
            and event.event_time >= tallygate.instant(newest.from_us)
            and event.event_time < tallygate.instant(newest.to_us)
        where newest.number = part.number
    ) - sum(part.units) as aside
from part
group by part.number, part.meter
order by part.number, part.meter
