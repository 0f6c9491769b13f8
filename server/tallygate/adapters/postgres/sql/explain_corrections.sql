-- Read the corrections of counters that were due for an event.
select
    takes_back, epoch, outcome, source_id, source_lane, source_seq,
    tallygate.microseconds(created_at) as created_at_us,
    tallygate.microseconds(finished_at) as finished_at_us
from tallygate.counter_correction
where tenant_id = $1::text and event_id = $2::text
order by id
limit 1000
