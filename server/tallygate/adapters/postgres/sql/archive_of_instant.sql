-- Read the archive that the events of an instant's month are in alone, if they were dropped.
select
    tallygate.microseconds(dropped.month) as month_us, archive.file, archive.file_sha256,
    tallygate.microseconds(dropped.dropped_at) as dropped_at_us
from tallygate.month_dropped as dropped
join tallygate.month_archive as archive using (archive_id)
where dropped.month = date_trunc('month', tallygate.instant($1::bigint), 'UTC')
