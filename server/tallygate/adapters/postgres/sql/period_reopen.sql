-- Open a closed period again, for as long as its grace lasts.
update tallygate.billing_period
set state = 'grace', cause = 'reopened', due_at = tallygate.instant($3::bigint), held = '',
    held_at = null, accept_missing = false
where tenant_id = $1 and start_at = tallygate.instant($2::bigint) and state = 'closed'
returning tenant_id, tallygate.microseconds(start_at) as start_us,
    tallygate.microseconds(end_at) as end_us, state, revision,
    tallygate.microseconds(due_at) as due_us, held, tallygate.microseconds(held_at) as held_us
