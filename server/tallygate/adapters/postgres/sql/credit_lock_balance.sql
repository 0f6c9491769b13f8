-- Lock a balance, so that its grants are numbered one by one; return the newest number.
select last_seq from tallygate.credit_balance where tenant_id = $1 and limit_id = $2 for update
