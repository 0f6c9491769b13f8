-- Find deliveries whose state and whose marks contradict each other.
select destination, message_id::text as message_id, state, attempt
from tallygate.delivery
where (state = 'delivered' and (attempt = 0 or finished_at is null))
    or (state = 'parked' and finished_at is null)
    or (state = 'pending' and finished_at is not null)
