-- Add up a tenant's usage per shape, window and group: windows' pieces run in parallel arrays. Of
-- the groups' values, those at places $7 are kept apart, all for null.
with piece as materialized (
    select * from tallygate.pieces_of($3::integer[], $4::integer[], $5::bigint[], $6::bigint[])
),
grouped as materialized (
    select * from tallygate.kept_groups($1::text, $2::integer[], $7::integer[])
)
select grouped.shape_id, piece.number, grouped.kept::text as kept,
    sum(part.count)::bigint as count, sum(part.sum) as sum,
    coalesce(max(part.max) filter (where part.count > 0), 0) as max,
    coalesce(min(part.min) filter (where part.count > 0), 0) as min,
    coalesce((array_agg(part.last order by part.last_at desc nulls last, part.last_id desc))[1], 0)
        as latest
from grouped cross join piece
join tallygate.group_usage as part
    on part.group_id = grouped.group_id and part.level = piece.level
    and part.bucket >= piece.starts and part.bucket < piece.ends
group by grouped.shape_id, piece.number, grouped.kept
