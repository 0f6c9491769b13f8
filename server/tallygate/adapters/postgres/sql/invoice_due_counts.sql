-- Count periods that are to be invoiced by why they are not, and since when the first is so.
select held, count(*) as periods,
    tallygate.microseconds(min(coalesce(held_at, next_at))) as since_us
from tallygate.invoice_due
group by held
order by held
