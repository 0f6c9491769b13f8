-- Note what counters are due, once for the number an event came under. Arrays run in parallel.
with due as (
    insert into tallygate.counter_correction (
        shard, epoch, takes_back, tenant_id, event_id, meter, amount, event_time, received_at,
        source_id, source_lane, source_seq, dimensions, context, refund_of
    )
    select
        shard, epoch, takes_back, tenant_id, event_id, meter, amount,
        tallygate.instant(event_time_us), tallygate.instant(received_at_us),
        source_id, source_lane, source_seq, dimensions::jsonb, context::jsonb, refund_of
    from unnest(
        $1::integer[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::text[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::integer[], $12::bigint[],
        $13::text[], $14::text[], $15::text[]
    ) as correction (
        shard, epoch, takes_back, tenant_id, event_id, meter, amount, event_time_us,
        received_at_us, source_id, source_lane, source_seq, dimensions, context, refund_of
    )
    on conflict (source_id, source_lane, source_seq) do nothing
    returning 1
)
select count(*) from due
