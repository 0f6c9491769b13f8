-- Finish the deliveries whose lease is still the one named; return those finished.
update tallygate.delivery
set
    state = 'delivered',
    finished_at = now(),
    lease_token = null,
    leased_until = null,
    reason = ''
from unnest($1::text[], $2::uuid[], $3::uuid[])
    as finished (destination, message_id, lease_token)
where
    delivery.destination = finished.destination
    and delivery.message_id = finished.message_id
    and delivery.lease_token = finished.lease_token
    and delivery.state = 'pending'
returning delivery.message_id
