-- Count periods by state and by why they are held; and since when the longest is.
select state, held, count(*) as periods, tallygate.microseconds(min(held_at)) as held_us
from tallygate.billing_period
where state <> 'closed' or held <> ''
group by state, held
union all
select 'closed', '', count(*), null from tallygate.billing_period where state = 'closed'
