-- Place a legal hold, once for its id; return what stands of it.
with placed as (
    insert into tallygate.legal_hold (hold_id, tenant_id, reason, actor)
    values ($1::text, $2::text, $3::text, $4::text)
    on conflict do nothing
    returning hold_id, tenant_id, reason, actor, placed_at
)
select hold_id, tenant_id, reason, actor, tallygate.microseconds(placed_at) as placed_at_us
from placed
union all
select hold_id, tenant_id, reason, actor, tallygate.microseconds(placed_at)
from tallygate.legal_hold where hold_id = $1
