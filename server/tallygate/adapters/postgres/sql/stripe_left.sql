-- Read sends of some states that nothing replaces, by number.
select
    send.state,
    send.code,
    send.reason,
    send.attempts,
    send.doubtful,
    intent.intent_id,
    intent.destination,
    intent.tenant_id,
    intent.customer,
    intent.meter,
    intent.dimensions,
    tallygate.microseconds(intent.window_start) as start_us,
    tallygate.microseconds(intent.window_end) as end_us,
    tallygate.microseconds(intent.period_start) as period_start_us,
    tallygate.microseconds(intent.period_end) as period_end_us,
    intent.seq,
    intent.kind,
    intent.quantity,
    intent.value,
    intent.event_name,
    tallygate.microseconds(intent.sent_as_of) as timestamp_us,
    intent.identifier,
    intent.idempotency_key,
    intent.replaces,
    intent.cancels,
    intent.details,
    tallygate.microseconds(intent.closed_start) as closed_start_us
from tallygate.stripe_send as send
join tallygate.stripe_intent as intent on intent.intent_id = send.intent_id
left join tallygate.stripe_intent as later on later.replaces = intent.intent_id
where
    send.destination = $1::text
    and send.state = any($2::text[])
    and ($3::text = '' or send.code = $3::text)
    and ($4::bigint[] is null or send.intent_id = any($4::bigint[]))
    and intent.intent_id > $5::bigint
    and later.intent_id is null
order by intent.intent_id
limit $6::integer
