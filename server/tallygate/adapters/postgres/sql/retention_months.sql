-- List the months of events before an instant, dropped ones left out, with what is known of each.
with event as (
    select
        date_trunc('month', event_time, 'UTC') as month,
        count(*) filter (where tableoid <> 'tallygate.usage_event_default'::regclass) as events,
        count(*) filter (where tableoid = 'tallygate.usage_event_default'::regclass) as elsewhere,
        min(tableoid::regclass::text)
            filter (where tableoid <> 'tallygate.usage_event_default'::regclass) as leaf
    from tallygate.usage_event
    where event_time < tallygate.instant($1::bigint)
    group by 1
)
select
    tallygate.microseconds(event.month) as month_us, event.events, event.elsewhere,
    coalesce(replace(event.leaf, 'tallygate.', ''), '') as leaf,
    coalesce(archive.archive_id, '') as archive_id, coalesce(archive.file, '') as file,
    coalesce(archive.file_sha256, '') as file_sha256, archive.events as archived,
    (
        select count(*) from tallygate.legal_hold_active as hold
        where exists (
            select from tallygate.usage_event as held
            where held.tenant_id = hold.tenant_id
                and held.event_time >= event.month
                and held.event_time < event.month + interval '1 month'
        )
    ) as holds,
    tallygate.unclosed_periods(event.month, event.month + interval '1 month') as unclosed
from event
left join lateral (
    select * from tallygate.month_archive as archive
    where archive.month = event.month
    order by archive.archived_at desc, archive.archive_id
    limit 1
) as archive on true
where not exists (
    select from tallygate.month_dropped as dropped where dropped.month = event.month
)
order by 1
