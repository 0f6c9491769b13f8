-- Mark up to which grant Redis has a balance, and in which epoch of which shard.
update tallygate.credit_balance
set published_seq = $3, published_shard = $4, published_epoch = $5
where tenant_id = $1 and limit_id = $2 and (published_epoch <> $5 or published_seq <= $3)
