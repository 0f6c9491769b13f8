-- Have whoever writes an invoice of this tenant wait for us.
select pg_advisory_xact_lock(hashtextextended('tallygate.invoice ' || $1::text, 0))
