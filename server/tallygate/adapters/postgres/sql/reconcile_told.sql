-- Add up what each destination was told of each period, by meter, and what it need not have been.
-- $5 to $7 are the stretches of acceptance in which a destination wanted to be told.
with ask as (
    select * from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
        as ask (number, tenant_id, from_us, to_us)
),
wanted as (
    select * from unnest($5::text[], $6::bigint[], $7::bigint[])
        as wanted (destination, from_us, to_us)
),
event as (
    select ask.number, stored.tenant_id, stored.event_id, stored.meter, stored.amount,
        stored.received_at
    from ask
    join tallygate.usage_event as stored
        on stored.tenant_id = ask.tenant_id
        and stored.event_time >= tallygate.instant(ask.from_us)
        and stored.event_time < tallygate.instant(ask.to_us)
),
told as (
    select delivery.destination, delivery.state, event.number, event.meter,
        event.tenant_id, event.event_id, (part ->> 'amount')::bigint as amount
    from tallygate.outbox as message
    cross join lateral jsonb_array_elements(
        convert_from(message.payload, 'UTF8')::jsonb -> 'data' -> 'events'
    ) as part
    join event on event.tenant_id = part ->> 'tenant_id' and event.event_id = part ->> 'event_id'
    join tallygate.delivery on delivery.message_id = message.id
    where message.type = 'usage.batch'
),
destination as (
    select destination from wanted union select destination from told
)
select event.number, event.meter, destination.destination,
    coalesce(max(sums.told), 0) as told,
    coalesce(max(sums.delivered), 0) as delivered,
    coalesce(max(sums.parked), 0) as parked,
    sum(event.amount) as ledger,
    coalesce(sum(event.amount) filter (
        where not exists (
            select from told
            where told.destination = destination.destination
                and told.tenant_id = event.tenant_id and told.event_id = event.event_id
        )
        and not (
            exists (
                select from wanted
                where wanted.destination = destination.destination
                    and event.received_at >= tallygate.instant(wanted.from_us)
                    and event.received_at < tallygate.instant(wanted.to_us)
            )
            and not exists (
                select from tallygate.outbox_pruned
                where event.received_at < outbox_pruned.pruned_before
            )
        )
    ), 0) as aside
from event
cross join destination
left join (
    select destination, number, meter, sum(amount) as told,
        coalesce(sum(amount) filter (where state = 'delivered'), 0) as delivered,
        coalesce(sum(amount) filter (where state = 'parked'), 0) as parked
    from told
    group by destination, number, meter
) as sums
    on sums.destination = destination.destination
    and sums.number = event.number and sums.meter = event.meter
group by event.number, event.meter, destination.destination
order by event.number, event.meter, destination.destination
