-- Read which months hold the events of an id that were dropped, of one tenant or of all.
select
    named.tenant_id, tallygate.microseconds(named.event_time) as event_time_us,
    tallygate.microseconds(dropped.month) as month_us, archive.file, archive.file_sha256,
    tallygate.microseconds(dropped.dropped_at) as dropped_at_us
from tallygate.event_key as named
join tallygate.month_dropped as dropped
    on dropped.month = date_trunc('month', named.event_time, 'UTC')
join tallygate.month_archive as archive using (archive_id)
where named.event_id = $2::text and ($1::text is null or named.tenant_id = $1)
    -- One that came after the drop is in the ledger.
    and not exists (
        select from tallygate.usage_event as event
        where event.tenant_id = named.tenant_id and event.event_id = named.event_id
            and event.event_time = named.event_time
    )
order by named.tenant_id
limit 100
