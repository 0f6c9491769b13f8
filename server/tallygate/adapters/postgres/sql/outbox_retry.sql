-- Give one delivery back for another try, if its lease is still the one named.
update tallygate.delivery
set
    due_at = now() + $4::bigint * interval '1 millisecond',
    lease_token = null,
    leased_until = null,
    reason = $5::text
where
    destination = $1::text
    and message_id = $2::uuid
    and lease_token = $3::uuid
    and state = 'pending'
returning message_id
