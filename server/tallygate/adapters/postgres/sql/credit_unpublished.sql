-- Read a page of the balances with grants that Redis has not been given.
select tenant_id, limit_id, last_seq, published_seq, published_shard, published_epoch
from tallygate.credit_balance
where (published_seq < last_seq or published_epoch = '')
    and (tenant_id, limit_id) > ($1::text, $2::text)
order by tenant_id, limit_id
limit $3
