-- Compare the events in messages with the ledger: unknown, other, told twice, or not told though
-- some destination wanted them. $2 and $3 are stretches of acceptance in which each was to be told.
with told as (
    select
        part ->> 'tenant_id' as tenant_id, part ->> 'event_id' as event_id,
        count(*) as messages,
        max((part ->> 'amount')::bigint) as amount,
        max(part ->> 'meter') as meter,
        min(message.id::text) as message_id
    from tallygate.outbox as message,
        jsonb_array_elements(convert_from(payload, 'UTF8')::jsonb -> 'data' -> 'events') as part
    where message.type = 'usage.batch' and ($1::text is null or part ->> 'tenant_id' = $1)
    group by 1, 2
)
select
    coalesce(told.tenant_id, event.tenant_id) as tenant_id,
    coalesce(told.event_id, event.event_id) as event_id,
    coalesce(told.messages, 0) as messages,
    coalesce(told.amount, 0) as told_amount, coalesce(told.meter, '') as told_meter,
    coalesce(event.amount, 0) as amount, coalesce(event.meter, '') as meter,
    coalesce(told.message_id, '') as message_id
from told
full join (
    select tenant_id, event_id, amount, meter, received_at from tallygate.usage_event
    where $1::text is null or tenant_id = $1
) as event on event.tenant_id = told.tenant_id and event.event_id = told.event_id
where
    case
        when told.event_id is null then exists (
            select from unnest($2::bigint[], $3::bigint[]) as stretch (from_us, to_us)
            where event.received_at >= tallygate.instant(from_us)
                and event.received_at < tallygate.instant(to_us)
        ) and not exists (
            -- What was accepted before that may have been told and pruned.
            select from tallygate.outbox_pruned
            where event.received_at < outbox_pruned.pruned_before
        )
        when event.event_id is null then not exists (
            -- The event was dropped with its month, and there is nothing to hold it against.
            select from tallygate.event_key as named
            join tallygate.month_dropped
                on month = date_trunc('month', named.event_time, 'UTC')
            where named.tenant_id = told.tenant_id and named.event_id = told.event_id
        )
        else told.messages <> 1 or told.amount <> event.amount or told.meter <> event.meter
    end
