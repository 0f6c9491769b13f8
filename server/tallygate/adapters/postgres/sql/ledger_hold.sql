-- Keep periods from being sealed and these shards from being closed; read until when and as what.
select sealed_until_us, shard, epoch from tallygate.hold_ledger($1::integer[])
