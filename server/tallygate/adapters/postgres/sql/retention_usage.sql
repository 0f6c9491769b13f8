-- Add up a month's events by tenant and meter, as its archive is to have them.
select
    tenant_id, meter, count(*) as events,
    count(*) filter (where refund_of = '') as count, sum(amount)::text as sum,
    coalesce(max(amount) filter (where refund_of = ''), 0) as max,
    coalesce(min(amount) filter (where refund_of = ''), 0) as min
from tallygate.usage_event
where event_time >= tallygate.instant($1::bigint) and event_time < tallygate.instant($2::bigint)
group by 1, 2
order by 1, 2
