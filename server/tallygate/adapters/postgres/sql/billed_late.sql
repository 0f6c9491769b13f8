-- Add up the late events that stretches of $1's usage leave out, by the place they are asked for.
-- Of each is asked until when the periods begin by which it is billed.
select
    asked.place, count(*) as events,
    count(*) filter (where late.amount > 0) as count,
    sum(late.amount) as sum,
    coalesce(max(late.amount) filter (where late.amount > 0), 0) as max,
    coalesce(min(late.amount) filter (where late.amount > 0), 0) as min
from unnest($2::integer[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
    as asked (place, meter, from_us, to_us, by_us)
join tallygate.late_usage as late
    on late.tenant_id = $1 and late.meter = asked.meter
    and late.event_time >= tallygate.instant(asked.from_us)
    and late.event_time < tallygate.instant(asked.to_us)
    and (late.awaited or late.allocated_start > tallygate.instant(asked.by_us))
group by asked.place
