-- Keep months of events from being dropped until the transaction ends: asked before all else, as a
-- snapshot that is older than a drop has neither the events nor the note of it.
lock table tallygate.usage_event in access share mode
