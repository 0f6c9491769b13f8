-- Add up what each grant and the overdraft of these tenants' balances had left at a time.
with posted as (
    select tenant_id, limit_id, account, sum(units) as units
    from (
        select tenant_id, limit_id, from_account as account, -amount as units, kind, happened_at
        from tallygate.credit_posting where tenant_id = any ($1::text[])
        union all
        select tenant_id, limit_id, to_account, amount, kind, happened_at
        from tallygate.credit_posting where tenant_id = any ($1::text[])
    ) as side
    where kind <> 'burn' or happened_at <= tallygate.instant($2::bigint)
    group by 1, 2, 3
)
select
    balance.tenant_id, balance.limit_id, balance.published_seq, balance.published_epoch,
    credit.seq,
    coalesce(posted.units, 0)::bigint as units,
    tallygate.microseconds(credit.expires_at) as expires_us,
    coalesce(owed.units, 0)::bigint as overdraft
from tallygate.credit_balance as balance
left join tallygate.credit_grant as credit
    on credit.tenant_id = balance.tenant_id and credit.limit_id = balance.limit_id
left join posted
    on posted.tenant_id = balance.tenant_id and posted.limit_id = balance.limit_id
    and posted.account = 'grant:' || credit.seq
left join posted as owed
    on owed.tenant_id = balance.tenant_id and owed.limit_id = balance.limit_id
    and owed.account = 'overdraft'
where balance.tenant_id = any ($1::text[])
order by 1, 2, 5
