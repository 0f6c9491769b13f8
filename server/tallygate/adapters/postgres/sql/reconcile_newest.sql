-- Read the daily run that was finished last.
select run_id, after_tenant, pairs, exact, drifting,
    tallygate.microseconds(finished_at) as finished_us
from tallygate.reconcile_run
where finished_at is not null and run_id like 'daily-%'
order by finished_at desc
limit 1
