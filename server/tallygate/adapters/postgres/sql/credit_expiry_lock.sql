-- Let one process at a time post expiries; say whether it is this one.
select pg_try_advisory_xact_lock(hashtext('tallygate.credit_expiry'))
