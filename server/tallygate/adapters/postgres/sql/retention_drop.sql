-- Drop a month of events that its archive has; return how many there were.
select tallygate.drop_month(tallygate.instant($1::bigint), $2::text, $3::integer, $4::text)
