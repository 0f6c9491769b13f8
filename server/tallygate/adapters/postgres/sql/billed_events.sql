-- Read events of a tenant and meter with the values $5 asks for and $6's value $7, by time and id.
-- Late ones are left out that are billed by periods that begin after $11, or await a revision.
select
    event.event_id, tallygate.microseconds(event.event_time) as event_time_us, event.amount,
    event.refund_of
from tallygate.usage_event as event
where event.tenant_id = $1 and event.meter = $2
    and event.event_time >= tallygate.instant($3::bigint)
    and event.event_time < tallygate.instant($4::bigint)
    and (event.event_time, event.event_id) > (tallygate.instant($8::bigint), $9::text)
    and ($6::text = '' or tallygate.value_of(event, $6) = $7::text)
    and not exists (
        select from jsonb_each($5::jsonb) as wanted (key, among)
        where not wanted.among ? tallygate.value_of(event, wanted.key)
    )
    and (
        $11::bigint is null or not exists (
            select from tallygate.late_usage as late
            where late.tenant_id = $1 and late.event_id = event.event_id
                and (late.awaited or late.allocated_start > tallygate.instant($11))
        )
    )
order by event.event_time, event.event_id
limit $10
