-- Add up, by meter, what events and minutes have of each period; asks run in parallel arrays.
-- Whole months whose events were dropped count as their archives have them, beside what came since.
select ask.number, usage.meter,
    sum(usage.count) filter (where usage.kind = 'event')::bigint as ledger_count,
    coalesce(sum(usage.sum) filter (where usage.kind = 'event'), 0) as ledger_sum,
    coalesce(max(usage.max) filter (where usage.kind = 'event'), 0) as ledger_max,
    coalesce(min(usage.min) filter (where usage.kind = 'event'), 0) as ledger_min,
    sum(usage.count) filter (where usage.kind = 'minute')::bigint as rollup_count,
    coalesce(sum(usage.sum) filter (where usage.kind = 'minute'), 0) as rollup_sum,
    coalesce(max(usage.max) filter (where usage.kind = 'minute'), 0) as rollup_max,
    coalesce(min(usage.min) filter (where usage.kind = 'minute'), 0) as rollup_min,
    exists (
        select from tallygate.month_dropped as dropped
        where dropped.month < tallygate.instant(ask.to_us)
            and dropped.month + interval '1 month' > tallygate.instant(ask.from_us)
            and not (
                dropped.month >= tallygate.instant(ask.from_us)
                and dropped.month + interval '1 month' <= tallygate.instant(ask.to_us)
            )
    ) as archived
from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
    as ask (number, tenant_id, from_us, to_us)
cross join lateral (
    select 'event' as kind, event.meter,
        count(*) filter (where event.amount > 0) as count,
        sum(event.amount) as sum,
        max(event.amount) filter (where event.amount > 0) as max,
        min(event.amount) filter (where event.amount > 0) as min
    from tallygate.usage_event as event
    where event.tenant_id = ask.tenant_id
        and event.event_time >= tallygate.instant(ask.from_us)
        and event.event_time < tallygate.instant(ask.to_us)
    group by event.meter
    union all
    select 'event', kept.meter, kept.count, kept.sum,
        case when kept.count > 0 then kept.max end, case when kept.count > 0 then kept.min end
    from tallygate.month_dropped as dropped
    join tallygate.month_archive_usage as kept using (archive_id)
    where kept.tenant_id = ask.tenant_id
        and dropped.month >= tallygate.instant(ask.from_us)
        and dropped.month + interval '1 month' <= tallygate.instant(ask.to_us)
    union all
    -- Without an event but for refunds a minute's largest and smallest stand as 0, and are none.
    select 'minute', minute.meter,
        sum(minute.count),
        sum(minute.sum),
        max(minute.max) filter (where minute.count > 0),
        min(minute.min) filter (where minute.count > 0)
    from tallygate.usage_minute as minute
    where minute.tenant_id = ask.tenant_id
        and minute.bucket >= tallygate.instant(ask.from_us)
        and minute.bucket < tallygate.instant(ask.to_us)
    group by minute.meter
) as usage
group by ask.number, ask.from_us, ask.to_us, usage.meter
order by ask.number, usage.meter
