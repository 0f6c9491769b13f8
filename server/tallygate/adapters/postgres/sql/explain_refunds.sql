-- Read the refunds of an event.
select event_id, amount, operation_id, tallygate.microseconds(received_at) as received_at_us
from tallygate.usage_event
where tenant_id = $1::text and refund_of = $2::text
order by received_at
limit 1000
