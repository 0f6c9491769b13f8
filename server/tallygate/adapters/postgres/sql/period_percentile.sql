-- Find the slot of a tenant's percentile $8, in millionths, per shape, window and group.
with piece as materialized (
    select * from tallygate.pieces_of($3::integer[], $4::integer[], $5::bigint[], $6::bigint[])
),
grouped as materialized (
    select own.*, asked.ppm
    from unnest($2::integer[], $8::bigint[]) as asked (shape_id, ppm)
    join tallygate.kept_groups($1::text, $2, $7::integer[]) as own using (shape_id)
),
found as (
    select grouped.shape_id, piece.number, grouped.kept, grouped.ppm, part.key::integer as slot,
        sum(part.units) as events
    from grouped cross join piece
    join tallygate.group_part as part
        on part.group_id = grouped.group_id and part.level = piece.level
        and part.bucket >= piece.starts and part.bucket < piece.ends
    group by 1, 2, 3, 4, 5
)
select shape_id, number, kept::text as kept,
    min(slot) filter (where passed >= greatest(1, ceil(events * ppm / 1000000))) as slot
from (
    select shape_id, number, kept, ppm, slot,
        sum(events) over (partition by shape_id, number, kept order by slot) as passed,
        sum(events) over (partition by shape_id, number, kept) as events
    from found
) as ranked
group by shape_id, number, kept
