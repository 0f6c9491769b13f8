-- Count the sends of each destination by state, and date the oldest usage that waits.
select
    destination,
    state,
    count(*) as sends,
    tallygate.microseconds(min(intent.sent_as_of)) as oldest_us,
    count(*) filter (where intent.sent_as_of < tallygate.instant($1::bigint)) as late
from tallygate.stripe_send as send
join tallygate.stripe_intent as intent using (intent_id, destination)
where state not in ('delivered', 'settled', 'shadow') and send.intent_id > 0
group by destination, state
order by destination, state
