-- Take a run on, if nobody else has taken it on from there; return its id if so.
update tallygate.reconcile_run
set after_tenant = $3::text,
    pairs = pairs + $4::bigint,
    exact = exact + $5::bigint,
    drifting = drifting + $6::bigint,
    finished_at = case when $7::boolean then now() end
where run_id = $1::text and after_tenant = $2::text and finished_at is null
returning run_id
