-- Close all epochs of these shards but one of each. Arrays run in parallel.
select tallygate.close_counters($1::integer[], $2::text[])
