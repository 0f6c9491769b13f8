-- Note when corrections were first tried.
update tallygate.counter_correction set tried_at = now()
where id = any($1::bigint[]) and tried_at is null
