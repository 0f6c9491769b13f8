-- Read the late events of a tenant and meter that the period of $8 bills, with the values $5 asks
-- for and $6's value $7, by time and id.
select
    event.event_id, tallygate.microseconds(event.event_time) as event_time_us, event.amount,
    event.refund_of
from tallygate.late_event as late
join tallygate.usage_event as event
    on event.tenant_id = late.tenant_id and event.meter = late.meter
    and event.event_time = late.event_time and event.event_id = late.event_id
where late.tenant_id = $1 and late.meter = $2
    and late.event_time >= tallygate.instant($3::bigint)
    and late.event_time < tallygate.instant($4::bigint)
    and late.allocated_start = tallygate.instant($8::bigint)
    and late.closed_start is distinct from late.allocated_start
    and (event.event_time, event.event_id) > (tallygate.instant($9::bigint), $10::text)
    and ($6::text = '' or tallygate.value_of(event, $6) = $7::text)
    and not exists (
        select from jsonb_each($5::jsonb) as wanted (key, among)
        where not wanted.among ? tallygate.value_of(event, wanted.key)
    )
order by event.event_time, event.event_id
limit $11
