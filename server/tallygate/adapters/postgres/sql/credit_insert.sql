-- Write a grant under the next number of its balance, which is locked, and post its units.
with numbered as (
    update tallygate.credit_balance set last_seq = last_seq + 1
    where tenant_id = $1 and limit_id = $2
    returning tenant_id, limit_id, last_seq
),
granted as (
    insert into tallygate.credit_grant (
        tenant_id, limit_id, seq, grant_id, amount, priority,
        starts_at, expires_at, reason, actor, created_at
    )
    select
        tenant_id, limit_id, last_seq, $3, $4, $5,
        tallygate.instant($6), tallygate.instant($7), $8, $9, tallygate.instant($10)
    from numbered
    returning tenant_id, limit_id, seq, amount, created_at
)
insert into tallygate.credit_posting (
    tenant_id, limit_id, kind, from_account, to_account, amount, happened_at
)
select tenant_id, limit_id, 'grant', 'issued', 'grant:' || seq, amount, created_at from granted
