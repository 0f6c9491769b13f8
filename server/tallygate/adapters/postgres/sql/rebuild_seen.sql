-- Read which numbers of these lanes are in the ledger, range by range.
select source_id, source_lane, lower(part) as first_seq, upper(part) - 1 as last_seq
from tallygate.source_progress, unnest(seen) as part
where source_lane = any($1::integer[])
order by source_id, source_lane, first_seq
