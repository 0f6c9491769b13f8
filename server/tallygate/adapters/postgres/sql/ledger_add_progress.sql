-- Mark sequence numbers of sources' lanes as seen; return all that is seen of them. Rows come
-- sorted.
with progress as (
    insert into tallygate.source_progress as progress (source_id, source_lane, seen)
    select source_id, source_lane, range_agg(int8range(first_seq, last_seq, '[]'))
    from unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[])
        as part (source_id, source_lane, first_seq, last_seq)
    group by source_id, source_lane
    order by source_id, source_lane
    on conflict (source_id, source_lane) do update set seen = progress.seen + excluded.seen
    returning source_id, source_lane, seen
)
select source_id, source_lane, lower(part) as first_seq, upper(part) - 1 as last_seq
from progress, unnest(seen) as part
order by source_id, source_lane, first_seq
