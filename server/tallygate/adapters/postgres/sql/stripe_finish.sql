-- Note what became of sends, those whose lease is still the one named; return them.
update tallygate.stripe_send as send
set
    state = result.state,
    due_at = tallygate.instant(result.due_us),
    doubtful = result.doubtful,
    -- An attempt that was never made, or was surely not taken, is none that the day counts from.
    attempts = send.attempts - result.unsent::integer,
    first_attempt_at = case when result.doubtful or result.final then send.first_attempt_at end,
    alone = send.alone or result.alone,
    batch_key = case when result.batch_key = '' then send.batch_key else result.batch_key end,
    code = result.code,
    reason = result.reason,
    lease_token = null
from unnest(
    $2::bigint[], $3::text[], $4::bigint[], $5::boolean[], $6::boolean[], $7::boolean[],
    $8::boolean[], $9::text[], $10::text[], $11::text[]
) as result (
    intent_id, state, due_us, doubtful, unsent, final, alone, batch_key, code, reason
)
where
    send.intent_id = result.intent_id
    and send.lease_token = $1::uuid
    and send.state = 'sending'
returning send.intent_id
