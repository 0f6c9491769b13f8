-- Read the deliveries of a message, by destination.
select
    destination, state, attempt, reason,
    coalesce(tallygate.microseconds(finished_at), 0) as finished_at_us
from tallygate.delivery
where message_id = $1::uuid
order by destination
limit 1000
