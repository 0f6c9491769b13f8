-- Keep events from being stored until the transaction ends, once those under way have been.
select tallygate.fence_periods()
