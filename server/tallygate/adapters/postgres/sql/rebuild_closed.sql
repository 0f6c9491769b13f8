-- Read the epoch that the counters of each shard were last made anew in.
select shard, epoch from tallygate.counter_epoch
