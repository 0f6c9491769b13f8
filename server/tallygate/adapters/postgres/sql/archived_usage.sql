-- List the months from $3 to $4, null for no bound, whose events were dropped and in which tenant
-- $1 has usage of meter $2, null for any, with their archives' files.
select to_char(dropped.month at time zone 'UTC', 'YYYY-MM') as month, archive.file
from tallygate.month_dropped as dropped
join tallygate.month_archive as archive using (archive_id)
where ($3::bigint is null or dropped.month + interval '1 month' > tallygate.instant($3))
    and ($4::bigint is null or dropped.month < tallygate.instant($4))
    and exists (
        select from tallygate.month_archive_usage as used
        where used.archive_id = dropped.archive_id
            and ($1::text is null or used.tenant_id = $1) and ($2::text is null or used.meter = $2)
    )
order by dropped.month
limit 100
