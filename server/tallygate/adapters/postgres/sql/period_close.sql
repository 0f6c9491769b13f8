-- Close a sealed revision, and keep how many events it covers and their hash; return what it is.
with closed as (
    update tallygate.billing_period
    set state = 'closed', held = '', held_at = null, accept_missing = false
    where tenant_id = $1 and start_at = tallygate.instant($2::bigint) and state = 'sealed'
        and revision = $3
    returning *
)
insert into tallygate.period_revision (
    tenant_id, start_at, revision, end_at, cause, sealed_at, closed_at, events, digest
)
select tenant_id, start_at, revision, end_at, cause, sealed_at, tallygate.instant($4::bigint),
    $5, $6
from closed
returning true
