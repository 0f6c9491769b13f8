-- Note what the counters of a tenant's meter are due, unless such a note is not worked off yet.
insert into tallygate.counter_correction (
    shard, epoch, takes_back, tenant_id, event_id, meter, amount, event_time, received_at,
    source_id, source_lane, source_seq, dimensions, context, refund_of
)
select known.shard, known.epoch, $4::bigint < 0, $2::text, 'reconciled', $3::text,
    abs($4::bigint), tallygate.instant($5::bigint), tallygate.instant($5::bigint),
    'reconcile ' || $2::text, known.shard, $5::bigint, '{}', '{}', ''
from tallygate.counter_epoch as known
where known.shard = $1::integer and known.closed_at is null
    and not exists (
        select from tallygate.counter_correction as owed
        where owed.tenant_id = $2::text and owed.event_id = 'reconciled'
            and owed.meter = $3::text and owed.finished_at is null
    )
on conflict do nothing
returning id
