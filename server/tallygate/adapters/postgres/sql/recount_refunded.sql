-- Count events that were taken back whole, per ask, slot and values of the fields $9, but for
-- refunds of epochs $10. A refund has its event's time. Asks run in parallel arrays.
select ask.number, refunded.slot, refunded.values, refunded.events
from unnest(
    $1::integer[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::bigint[]
) as ask (
    number, tenant_id, meter, from_us, received_from_us, received_until_us, slot_us, period_us
)
cross join lateral (
    select event.slot, event.values, count(*) as events
    from (
        select
            case
                when ask.slot_us = 0 then 0
                else tallygate.microseconds(least(e.event_time, taken.received_at)) / ask.slot_us
            end as slot,
            case when cardinality($9::text[]) = 0 then '{}'::text[] else array(
                select coalesce(
                    e.dimensions ->> field.name,
                    case field.name
                        when 'subject_id' then e.subject_id
                        when 'resource_id' then e.resource_id
                        when 'session_id' then e.session_id
                        when 'region' then e.region
                        when 'sku' then e.sku
                        when 'correlation_id' then e.correlation_id
                        when 'sdk' then e.sdk
                    end,
                    ''
                )
                from unnest($9::text[]) with ordinality as field (name, place)
                order by field.place
            ) end as values
        from (
            select
                r.refund_of, r.event_time, -sum(r.amount) as units,
                max(r.received_at) as received_at
            from tallygate.usage_event as r
            where r.tenant_id = ask.tenant_id
                and r.meter = ask.meter
                and r.refund_of <> ''
                and r.event_time >= tallygate.instant(ask.from_us)
                and r.received_at >= tallygate.instant(ask.received_from_us)
                and r.received_at < tallygate.instant(ask.received_until_us)
                and r.counter_epoch <> all($10::text[])
            group by r.refund_of, r.event_time
        ) as taken
        join tallygate.usage_event as e
            on e.tenant_id = ask.tenant_id
            and e.meter = ask.meter
            and e.event_time = taken.event_time
            and e.event_id = taken.refund_of
        where e.amount = taken.units
    ) as event
    group by event.slot, event.values
) as refunded
