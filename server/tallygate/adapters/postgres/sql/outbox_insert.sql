-- Write messages, and a delivery for every active destination that wants their type.
with message as (
    insert into tallygate.outbox (id, aggregatetype, aggregateid, type, payload, trace_context)
    select *
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])
    returning id, type
)
insert into tallygate.delivery (message_id, destination)
select message.id, destination.name
from message
join tallygate.destination on destination.active and message.type = any (destination.types)
