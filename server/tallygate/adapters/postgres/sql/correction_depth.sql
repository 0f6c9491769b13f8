-- Count the corrections that are due.
select count(*) from tallygate.counter_correction where finished_at is null
