-- Read the newest rows of the audit log, by tenant, actor, action and time, before a number.
select
    seq, tallygate.microseconds(at) as at_us, actor, role, action, tenant_id, call_id, request,
    request_sha256, outcome, prev_hash, hash
from tallygate.audit_log
where ($1::text = '' or tenant_id = $1)
    and ($2::text = '' or actor = $2)
    and ($3::text = '' or action = $3)
    and ($4::bigint is null or at >= tallygate.instant($4))
    and ($5::bigint is null or at < tallygate.instant($5))
    and ($6::bigint is null or seq < $6)
order by seq desc
limit $7::integer
