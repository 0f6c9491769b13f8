-- What was refused, by meter and reason, most first.
select meter, reason, count(*) as events, min(detail) as detail
from tallygate.capture_rejected
group by meter, reason
order by count(*) desc, meter, reason
limit $1::integer
