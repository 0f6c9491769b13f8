-- Read a page of all balances, with what Redis was given of each and where.
select tenant_id, limit_id, last_seq, published_seq, published_shard, published_epoch
from tallygate.credit_balance
where (tenant_id, limit_id) > ($1::text, $2::text)
order by tenant_id, limit_id
limit $3
