-- Set one delivery aside with the reason, if its lease is still the one named.
update tallygate.delivery
set
    state = 'parked',
    finished_at = now(),
    lease_token = null,
    leased_until = null,
    reason = $4::text
where
    destination = $1::text
    and message_id = $2::uuid
    and lease_token = $3::uuid
    and state = 'pending'
returning message_id
