-- Read the oldest corrections that are due, and mark them as tried.
update tallygate.counter_correction as correction set tried_at = coalesce(tried_at, now())
from (
    select id, tried_at as before from tallygate.counter_correction
    where finished_at is null order by id limit $1
) as due
where correction.id = due.id
returning
    correction.id, shard, epoch, takes_back, tenant_id, event_id, meter, amount,
    tallygate.microseconds(event_time) as event_time_us,
    tallygate.microseconds(received_at) as received_at_us,
    source_id, source_lane, source_seq, dimensions, context, refund_of,
    coalesce(extract(epoch from now() - due.before), 0)::float8 as tried_s
