-- Count, of each period, the events that are known by their keys alone, and those without a key;
-- asks run in parallel arrays. Of months that were dropped, keys stay.
select ask.number,
    (
        select count(*)
        from tallygate.event_key as known
        where known.tenant_id = ask.tenant_id
            and known.event_time >= tallygate.instant(ask.from_us)
            and known.event_time < tallygate.instant(ask.to_us)
            and not exists (
                select from tallygate.usage_event as event
                where event.tenant_id = known.tenant_id and event.event_id = known.event_id
                    and event.event_time = known.event_time
            )
            and not exists (
                select from tallygate.month_dropped
                where month = date_trunc('month', known.event_time, 'UTC')
            )
    ) + (
        select count(*)
        from tallygate.usage_event as event
        where event.tenant_id = ask.tenant_id
            and event.event_time >= tallygate.instant(ask.from_us)
            and event.event_time < tallygate.instant(ask.to_us)
            and not exists (
                select from tallygate.event_key as known
                where known.tenant_id = event.tenant_id and known.event_id = event.event_id
            )
    ) as wrong
from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
    as ask (number, tenant_id, from_us, to_us)
