-- Read the dead letters of an event id, of one tenant or of all.
select
    id, tenant_id, reason, detail, source_id, source_lane, source_seq,
    tallygate.microseconds(received_at) as received_at_us,
    tallygate.microseconds(created_at) as created_at_us
from tallygate.dead_letter
where event_id = $2::text and ($1::text is null or tenant_id = $1)
order by id
limit 100
