-- Read how far a run has come.
select run_id, after_tenant, pairs, exact, drifting,
    tallygate.microseconds(finished_at) as finished_us
from tallygate.reconcile_run
where run_id = $1::text
