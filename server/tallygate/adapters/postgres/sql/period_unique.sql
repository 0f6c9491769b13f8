-- Count a tenant's different values per shape, window and group: those whose units are above 0.
with piece as materialized (
    select * from tallygate.pieces_of($3::integer[], $4::integer[], $5::bigint[], $6::bigint[])
),
grouped as materialized (
    select * from tallygate.kept_groups($1::text, $2::integer[], $7::integer[])
)
select found.shape_id, found.number, found.kept::text as kept,
    count(*) filter (where found.units > 0) as different
from (
    select grouped.shape_id, piece.number, grouped.kept, part.key, sum(part.units) as units
    from grouped cross join piece
    join tallygate.group_part as part
        on part.group_id = grouped.group_id and part.level = piece.level
        and part.bucket >= piece.starts and part.bucket < piece.ends
    group by grouped.shape_id, piece.number, grouped.kept, part.key
) as found
group by found.shape_id, found.number, found.kept
