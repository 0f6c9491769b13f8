-- Store the events whose key is new; return the rows stored. Arrays run in parallel, sorted by key.
with incoming as (
    select * from unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::text[], $8::text[], $9::integer[], $10::bigint[], $11::text[], $12::integer[],
        $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[],
        $20::text[], $21::text[], $22::text[], $23::text[]
    ) as event (
        tenant_id, event_id, meter, amount, event_time_us, received_at_us,
        operation_id, source_id, source_lane, source_seq, counter_epoch, schema_version,
        subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
        dimensions, metadata, refund_of, reservation_id
    )
),
fresh as (
    insert into tallygate.event_key (tenant_id, event_id, event_time)
    select tenant_id, event_id, tallygate.instant(event_time_us) from incoming
    on conflict do nothing
    returning tenant_id, event_id
)
insert into tallygate.usage_event (
    tenant_id, event_id, meter, amount, event_time, received_at,
    operation_id, source_id, source_lane, source_seq, counter_epoch, schema_version,
    subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
    dimensions, metadata, refund_of, reservation_id
)
select
    tenant_id, event_id, meter, amount,
    tallygate.instant(event_time_us), tallygate.instant(received_at_us),
    operation_id, source_id, source_lane, source_seq, counter_epoch, schema_version,
    subject_id, resource_id, session_id, region, sku, correlation_id, sdk,
    dimensions::jsonb, metadata::jsonb, refund_of, reservation_id
from incoming join fresh using (tenant_id, event_id)
returning tenant_id, event_id
