-- Read events between two instants, of one tenant and meter or all, by tenant and event id.
select tenant_id, event_id, meter, tallygate.microseconds(event_time) as event_time_us, amount
from tallygate.usage_event
where event_time >= tallygate.instant($1::bigint) and event_time < tallygate.instant($2::bigint)
    and ($3::text is null or tenant_id = $3)
    and ($4::text is null or meter = $4)
order by tenant_id, event_id
