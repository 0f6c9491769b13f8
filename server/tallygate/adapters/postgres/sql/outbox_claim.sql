-- Lease the deliveries of one destination that are due, longest due first, the attempt counted.
-- The locking read stands in a CTE of its own: as a subquery it might be run again per row.
with due as (
    select destination, message_id
    from tallygate.delivery
    where destination = $1::text and state = 'pending' and due_at <= now()
    order by due_at
    limit $2::integer
    for update skip locked
),
leased as (
    update tallygate.delivery
    set
        attempt = delivery.attempt + 1,
        lease_token = $3::uuid,
        leased_until = now() + $4::bigint * interval '1 millisecond',
        due_at = now() + $4::bigint * interval '1 millisecond'
    from due
    where delivery.destination = due.destination and delivery.message_id = due.message_id
    returning delivery.message_id, delivery.destination, delivery.attempt
)
select
    leased.message_id,
    leased.destination,
    leased.attempt,
    outbox.type,
    outbox.payload,
    outbox.trace_context,
    (extract(epoch from outbox.created_at) * 1000000)::bigint as created_at_us
from leased join tallygate.outbox on outbox.id = leased.message_id
order by outbox.created_at, outbox.seq
