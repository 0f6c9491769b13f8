-- List legal holds, of one tenant or all, the newest first, with their ends.
select
    hold.hold_id, hold.tenant_id, hold.reason, hold.actor,
    tallygate.microseconds(hold.placed_at) as placed_at_us,
    coalesce(tallygate.microseconds(ended.released_at), 0) as released_at_us,
    coalesce(ended.reason, '') as release_reason, coalesce(ended.actor, '') as released_by
from tallygate.legal_hold as hold
left join tallygate.legal_hold_release as ended using (hold_id)
where $1::text is null or hold.tenant_id = $1
order by hold.placed_at desc, hold.hold_id
limit 1000
