-- Read the oldest corrections that are due.
select
    id, shard, epoch, takes_back, tenant_id, event_id, meter, amount,
    tallygate.microseconds(event_time) as event_time_us,
    tallygate.microseconds(received_at) as received_at_us,
    source_id, source_lane, source_seq, dimensions, context, refund_of,
    coalesce(extract(epoch from now() - tried_at), 0)::float8 as tried_s
from tallygate.counter_correction
where finished_at is null
order by id
limit $1
