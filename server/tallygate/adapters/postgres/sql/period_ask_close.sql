-- Have a period that has ended be due now; $4 accepts what holds it.
update tallygate.billing_period
set due_at = least(due_at, tallygate.instant($3::bigint)), accept_missing = accept_missing or $4
where tenant_id = $1 and start_at = tallygate.instant($2::bigint)
    and state in ('grace', 'sealed')
returning true
