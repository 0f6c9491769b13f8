-- Leave number 1 out of a balance that has had no grant; return the balance's newest number.
update tallygate.credit_balance set last_seq = greatest(last_seq, 1)
where tenant_id = $1 and limit_id = $2
returning last_seq
