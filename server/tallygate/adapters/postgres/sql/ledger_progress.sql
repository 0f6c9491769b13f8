-- Read how far every source's lane has come, and its ranges below the highest number.
select
    source_id, source_lane,
    lower(part) as first_seq, upper(part) - 1 as last_seq
from tallygate.source_progress, unnest(seen) as part
order by source_id, source_lane, first_seq
