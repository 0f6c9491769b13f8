-- Add up events of a tenant and meter with the values $5 asks for, by their value of $6, but for
-- late ones that are billed by periods that begin after $8, or await a revision; null keeps all.
select
    coalesce(tallygate.value_of(event, $6::text), '') as value,
    count(*) filter (where event.amount > 0) as count,
    sum(event.amount) as sum,
    coalesce(max(event.amount) filter (where event.amount > 0), 0) as max,
    coalesce(min(event.amount) filter (where event.amount > 0), 0) as min
from tallygate.usage_event as event
where event.tenant_id = $1 and event.meter = $2
    and event.event_time >= tallygate.instant($3::bigint)
    and event.event_time < tallygate.instant($4::bigint)
    and not exists (
        select from jsonb_each($5::jsonb) as wanted (key, among)
        where not wanted.among ? tallygate.value_of(event, wanted.key)
    )
    and (
        $8::bigint is null or not exists (
            select from tallygate.late_usage as late
            where late.tenant_id = $1 and late.event_id = event.event_id
                and (late.awaited or late.allocated_start > tallygate.instant($8))
        )
    )
group by 1
order by 1
limit $7
