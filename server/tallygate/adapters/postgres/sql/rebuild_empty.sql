-- Say whether the ledger has no usage at all.
select not exists (select from tallygate.usage_day)
