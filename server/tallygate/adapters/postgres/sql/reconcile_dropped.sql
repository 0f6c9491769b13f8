-- List the months whose events are in their archives alone.
select tallygate.microseconds(month) as from_us,
    tallygate.microseconds(month + interval '1 month') as to_us
from tallygate.month_dropped
order by month
