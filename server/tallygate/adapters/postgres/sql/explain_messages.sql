-- Read the messages that tell of an event, with their deliveries. $3 is the event's id as the
-- payload spells it: a search through all messages since its acceptance, then a look into those.
select
    message.id::text as message_id, message.type,
    tallygate.microseconds(message.created_at) as created_at_us,
    coalesce(delivery.destination, '') as destination,
    coalesce(delivery.state, 'not wanted') as state,
    coalesce(delivery.attempt, 0) as attempt,
    coalesce(delivery.reason, '') as reason,
    tallygate.microseconds(delivery.finished_at) as finished_at_us
from tallygate.outbox as message
left join tallygate.delivery on delivery.message_id = message.id
where message.type = 'usage.batch'
    -- Redis' clock and Postgres' may be some minutes apart, no more.
    and message.created_at >= tallygate.instant($4::bigint) - interval '1 hour'
    and position($3::text in convert_from(message.payload, 'UTF8')) > 0
    and exists (
        select from jsonb_array_elements(
            convert_from(message.payload, 'UTF8')::jsonb -> 'data' -> 'events'
        ) as part
        where part ->> 'tenant_id' = $1::text and part ->> 'event_id' = $2::text
    )
order by message.seq, destination
limit 1000
