-- Delete some of the messages that are older than so many days and wait nowhere; count them.
-- Those that tell of a tenant whom a legal hold keeps stay.
with old as (
    select id
    from tallygate.outbox
    where
        created_at < now() - $1::integer * interval '1 day'
        and xid < pg_snapshot_xmin(pg_current_snapshot())
        and not exists (
            select from tallygate.delivery
            where delivery.message_id = outbox.id and delivery.state <> 'delivered'
        )
        and not exists (
            select from tallygate.legal_hold_active as hold
            where case
                when outbox.type = 'usage.batch' then exists (
                    select from jsonb_array_elements(
                        convert_from(outbox.payload, 'UTF8')::jsonb -> 'data' -> 'events'
                    ) as part
                    where part ->> 'tenant_id' = hold.tenant_id
                )
                else convert_from(outbox.payload, 'UTF8')::jsonb -> 'data' ->> 'tenant_id'
                    = hold.tenant_id
            end
        )
    order by xid, seq
    limit $2::integer
),
noted as (
    insert into tallygate.outbox_pruned (pruned_before)
    values (now() - $1::integer * interval '1 day')
    on conflict (one) do update set
        pruned_before = greatest(outbox_pruned.pruned_before, excluded.pruned_before)
),
ends as (
    delete from tallygate.delivery using old where delivery.message_id = old.id
),
gone as (
    delete from tallygate.outbox using old where outbox.id = old.id returning 1
)
select count(*) from gone
