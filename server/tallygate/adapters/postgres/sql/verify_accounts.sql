-- Compare each account of a balance with the sum of its postings; return what differs.
with posted as (
    select tenant_id, limit_id, account, sum(units) as units
    from (
        select tenant_id, limit_id, from_account as account, -amount as units
        from tallygate.credit_posting
        union all
        select tenant_id, limit_id, to_account, amount from tallygate.credit_posting
    ) as side
    where $1::text is null or tenant_id = $1
    group by 1, 2, 3
),
held as (
    select tenant_id, limit_id, account, balance from tallygate.credit_account
    where $1::text is null or tenant_id = $1
)
select
    tenant_id, limit_id, account,
    coalesce(posted.units, 0) as units, coalesce(held.balance, 0) as balance
from posted full join held using (tenant_id, limit_id, account)
where coalesce(posted.units, 0) <> coalesce(held.balance, 0)
