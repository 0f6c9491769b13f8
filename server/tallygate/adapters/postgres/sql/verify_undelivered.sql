-- Find messages that lack a delivery to a destination that wanted their type when they were made.
select
    message.id::text as message_id, wanted.destination, message.type,
    tallygate.microseconds(message.created_at) as created_at_us
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
    as wanted (destination, type, from_us, to_us)
join tallygate.outbox as message
    on message.type = wanted.type
    and message.created_at >= tallygate.instant(wanted.from_us)
    and message.created_at < tallygate.instant(wanted.to_us)
where not exists (
    select from tallygate.delivery
    where delivery.message_id = message.id and delivery.destination = wanted.destination
)
