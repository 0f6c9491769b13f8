-- Read the highest number of each source's lane, of sources whose names end with these epochs.
select source_id, source_lane, upper(seen) - 1 as highest_seq
from tallygate.source_progress
where source_id ~ '[.]' and reverse(split_part(reverse(source_id), '.', 1)) = any($1::text[])
