-- Post what is left of grants that expired before an instant; count them.
with due as (
    select account.tenant_id, account.limit_id, account.account, account.balance
    from tallygate.credit_account as account
    join tallygate.credit_grant as credit
        on credit.tenant_id = account.tenant_id
        and credit.limit_id = account.limit_id
        and credit.seq = account.grant_seq
    where account.grant_seq is not null and account.balance <> 0
        and credit.expires_at <= tallygate.instant($1)
    order by account.tenant_id, account.limit_id, account.grant_seq
    limit $2
),
posted as (
    insert into tallygate.credit_posting (
        tenant_id, limit_id, kind, from_account, to_account, amount, happened_at
    )
    select
        tenant_id, limit_id, 'expiry',
        case when balance > 0 then account else 'expired' end,
        case when balance > 0 then 'expired' else account end,
        abs(balance)::bigint, tallygate.instant($3)
    from due
    returning 1
)
select count(*) from posted
