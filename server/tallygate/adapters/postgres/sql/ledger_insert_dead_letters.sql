-- Keep refused and unreadable events, each once; return how many are new.
with kept as (
    insert into tallygate.dead_letter (
        tenant_id, event_id, reason, detail, payload, received_at,
        source_id, source_lane, source_seq
    )
    select
        tenant_id, event_id, reason, detail, payload, tallygate.instant(received_at_us),
        source_id, source_lane, source_seq
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[],
        $7::text[], $8::integer[], $9::bigint[]
    ) as letter (
        tenant_id, event_id, reason, detail, payload, received_at_us,
        source_id, source_lane, source_seq
    )
    on conflict (source_id, source_lane, source_seq, payload_sha256) do nothing
    returning 1
)
select count(*) from kept
