-- Create the monthly partitions that are missing around today; return how many.
-- Events are at most 35 days late by default; the months ahead outlast a long outage of ingest.
select tallygate.ensure_partitions(current_date - 40, current_date + 70)
