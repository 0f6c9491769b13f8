-- Begin a run, once.
insert into tallygate.reconcile_run (run_id) values ($1::text) on conflict do nothing
