-- Say whether events of a tenant's period from $2 to $3, or late ones that its revision $4 has, are
-- in an archive alone.
select exists (
    select from tallygate.month_dropped as dropped
    join tallygate.month_archive_usage as used using (archive_id)
    where used.tenant_id = $1 and dropped.month < tallygate.instant($3::bigint)
        and dropped.month + interval '1 month' > tallygate.instant($2::bigint)
) or exists (
    select from tallygate.late_event as late
    join tallygate.month_dropped as dropped
        on late.event_time >= dropped.month and late.event_time < dropped.month + interval '1 month'
    where late.tenant_id = $1 and late.allocated_start = tallygate.instant($2)
        and late.allocated_revision = $4
        -- What came after the month had gone is here.
        and not exists (
            select from tallygate.usage_event as event
            where event.tenant_id = late.tenant_id and event.meter = late.meter
                and event.event_time = late.event_time and event.event_id = late.event_id
        )
)
