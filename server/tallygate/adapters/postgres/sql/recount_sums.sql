-- Sum up usage per ask, slot and values of the fields $9, but for events of epochs $10. Asks run in
-- parallel arrays. A dimension counts before a field of the context of the same name.
select ask.number, usage.slot, usage.values, usage.events, usage.amount
from unnest(
    $1::integer[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::bigint[]
) as ask (
    number, tenant_id, meter, from_us, received_from_us, received_until_us, slot_us, period_us
)
cross join lateral (
    select
        event.slot, event.values,
        count(*) filter (where event.amount > 0) as events,
        sum(event.amount) as amount
    from (
        select
            e.amount,
            case
                when ask.slot_us = 0 then 0
                when ask.period_us > 0 then tallygate.microseconds(e.received_at) / ask.slot_us
                else tallygate.microseconds(least(e.event_time, e.received_at)) / ask.slot_us
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
        from tallygate.usage_event as e
        where e.tenant_id = ask.tenant_id
            and e.meter = ask.meter
            and e.event_time >= tallygate.instant(ask.from_us)
            and e.received_at >= tallygate.instant(ask.received_from_us)
            and e.received_at < tallygate.instant(ask.received_until_us)
            and (
                ask.period_us = 0
                or e.event_time >= e.received_at - ask.period_us * interval '1 microsecond'
            )
            and e.counter_epoch <> all($10::text[])
    ) as event
    group by event.slot, event.values
) as usage
