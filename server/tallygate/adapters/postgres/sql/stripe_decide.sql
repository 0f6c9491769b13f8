-- Note what a person, or a summary, found of sends that are left open; return those it was of.
update tallygate.stripe_send as send
set
    state = 'settled',
    -- Of what may have been taken, no sum has told whether it was.
    code = case when send.doubtful then 'undecided' else send.code end,
    reason = $3::text,
    lease_token = null
where
    send.intent_id = any($2::bigint[])
    and send.destination = $1::text
    and send.state in ('ambiguous', 'rejected', 'too_old', 'pending')
returning send.intent_id
