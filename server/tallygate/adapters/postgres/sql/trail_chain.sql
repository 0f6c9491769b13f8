-- Read the whole audit log in the order of its numbers, through a cursor.
select
    seq, tallygate.microseconds(at) as at_us, actor, role, action, tenant_id, call_id, request,
    request_sha256, outcome, prev_hash, hash
from tallygate.audit_log
order by seq
