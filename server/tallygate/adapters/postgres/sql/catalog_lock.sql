-- Let one writer at a time make the next version.
select pg_advisory_xact_lock(hashtext('tallygate.catalog'))
