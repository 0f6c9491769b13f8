-- Read how many lost events periods have been closed without, by somebody's word.
select coalesce(max(accepted_lost), 0) from tallygate.period_frontier
