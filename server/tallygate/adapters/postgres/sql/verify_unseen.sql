-- Find the numbers that are not in the ledger, by their places in the list.
select asked.place
from unnest($1::integer[], $2::text[], $3::integer[], $4::bigint[])
    as asked (place, source_id, source_lane, seq)
left join tallygate.source_progress as progress using (source_id, source_lane)
where not coalesce(progress.seen @> asked.seq, false)
order by 1
