-- Read what Stripe is known to have been told of a customer's meter with times in a stretch, and
-- what it may have been.
-- What was replaced counts for nothing. What adds up is summed; totals have no use for this.
select
    intent.intent_id,
    intent.value,
    send.state,
    send.doubtful,
    tallygate.microseconds(send.last_attempt_at) as last_attempt_us,
    tallygate.microseconds(send.first_attempt_at) as first_attempt_us
from tallygate.stripe_send as send
join tallygate.stripe_intent as intent on intent.intent_id = send.intent_id
left join tallygate.stripe_intent as later on later.replaces = intent.intent_id
where
    send.destination = $1::text
    and send.customer = $2::text
    and send.meter = $3::text
    and intent.sent_as_of >= tallygate.instant($4::bigint)
    and intent.sent_as_of < tallygate.instant($5::bigint)
    and intent.kind in ('delta', 'negative', 'cancel')
    and (send.state in ('delivered', 'settled') or send.doubtful)
    and send.state not in ('rejected', 'shadow')
    and later.intent_id is null
order by intent.intent_id
