-- Make a balance's row, where there is none yet, before it is locked.
insert into tallygate.credit_balance (tenant_id, limit_id) values ($1, $2) on conflict do nothing
