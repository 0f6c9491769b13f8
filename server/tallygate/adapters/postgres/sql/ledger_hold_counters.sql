-- Keep these shards from being closed until the transaction ends; read their counters' epochs.
select shard, epoch from tallygate.hold_counters($1::integer[])
