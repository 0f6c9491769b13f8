-- List the months within a range whose events were dropped, with their archives' files.
select to_char(dropped.month at time zone 'UTC', 'YYYY-MM') as month, archive.file
from tallygate.month_dropped as dropped
join tallygate.month_archive as archive using (archive_id)
where ($1::bigint is null or dropped.month + interval '1 month' > tallygate.instant($1))
    and ($2::bigint is null or dropped.month < tallygate.instant($2))
order by dropped.month
limit 100
