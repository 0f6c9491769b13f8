-- Post what balances have burnt, each burn once; return how many are new.
with posted as (
    insert into tallygate.credit_posting (
        tenant_id, limit_id, kind, from_account, to_account, amount, happened_at,
        counter_epoch, source_id, source_lane, entry_id, number
    )
    select
        tenant_id, limit_id, 'burn', from_account, to_account, amount,
        tallygate.instant(happened_at_us), counter_epoch, source_id, source_lane, entry_id, number
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
        $7::text[], $8::text[], $9::integer[], $10::text[], $11::integer[]
    ) as burn (
        tenant_id, limit_id, from_account, to_account, amount, happened_at_us,
        counter_epoch, source_id, source_lane, entry_id, number
    )
    on conflict (source_id, source_lane, entry_id, number) where kind = 'burn' do nothing
    returning 1
)
select count(*) from posted
