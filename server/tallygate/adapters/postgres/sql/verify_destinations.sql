-- Add up per destination and meter what its messages tell, and what the ledger has of those events;
-- of events that were dropped with their months, neither.
with told as (
    select
        message.id, part ->> 'tenant_id' as tenant_id, part ->> 'event_id' as event_id,
        part ->> 'meter' as meter, (part ->> 'amount')::bigint as amount
    from tallygate.outbox as message,
        jsonb_array_elements(convert_from(payload, 'UTF8')::jsonb -> 'data' -> 'events') as part
    where message.type = 'usage.batch' and ($1::text is null or part ->> 'tenant_id' = $1)
)
select
    delivery.destination, told.meter,
    count(*) as events,
    sum(told.amount) as told,
    coalesce(sum(told.amount) filter (where delivery.state = 'delivered'), 0) as delivered,
    coalesce(sum(told.amount) filter (where delivery.state = 'parked'), 0) as parked,
    coalesce(sum(event.amount), 0) as ledger
from told
join tallygate.delivery on delivery.message_id = told.id
left join tallygate.usage_event as event
    on event.tenant_id = told.tenant_id and event.event_id = told.event_id
    -- The key's time finds the partition, where the event's id alone would search them all.
    and event.event_time = (
        select event_time from tallygate.event_key
        where event_key.tenant_id = told.tenant_id and event_key.event_id = told.event_id
    )
where event.event_id is not null or not exists (
    select from tallygate.event_key as named
    join tallygate.month_dropped on month = date_trunc('month', named.event_time, 'UTC')
    where named.tenant_id = told.tenant_id and named.event_id = told.event_id
)
group by 1, 2
order by 1, 2
