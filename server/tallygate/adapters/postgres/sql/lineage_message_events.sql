-- Read the events that a message tells of, in its order, and where each is.
select
    part ->> 'tenant_id' as tenant_id, part ->> 'event_id' as event_id, part ->> 'meter' as meter,
    (part ->> 'amount')::bigint as amount,
    case
        when named.event_time is null then 'nowhere'
        when exists (
            select from tallygate.usage_event as event
            where event.tenant_id = named.tenant_id and event.event_id = named.event_id
                and event.event_time = named.event_time
        ) then 'ledger'
        when exists (
            select from tallygate.month_dropped
            where month = date_trunc('month', named.event_time, 'UTC')
        ) then 'archive'
        else 'nowhere'
    end as whereabouts
from tallygate.outbox as message,
    jsonb_array_elements(convert_from(payload, 'UTF8')::jsonb -> 'data' -> 'events')
        with ordinality as told (part, place)
left join tallygate.event_key as named
    on named.tenant_id = part ->> 'tenant_id' and named.event_id = part ->> 'event_id'
where message.id = $1::uuid and message.type = 'usage.batch' and place > $2::bigint
order by place
limit $3::integer
