-- Read the epochs that each shard's counters were made anew in, and which of them are current.
select shard, epoch, closed_at is null as current from tallygate.counter_epoch
