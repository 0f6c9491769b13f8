-- Add up a tenant's levels times microseconds per shape, window $8 to $9 and group: each level
-- holds until the next, the one before the window into it, and the last to the window's end.
with piece as materialized (
    select * from tallygate.pieces_of($3::integer[], $4::integer[], $5::bigint[], $6::bigint[])
),
span as materialized (
    select place::integer - 1 as number, start_us, end_us
    from unnest($8::bigint[], $9::bigint[]) with ordinality as span (start_us, end_us, place)
),
grouped as materialized (
    select * from tallygate.kept_groups($1::text, $2::integer[], $7::integer[])
),
joined as (
    select part.group_id, piece.number, part.first_at, part.area, part.last_at, part.last,
        lead(part.first_at) over (
            partition by part.group_id, piece.number order by part.bucket
        ) as next_at
    from grouped cross join piece
    join tallygate.group_usage as part
        on part.group_id = grouped.group_id and part.level = piece.level
        and part.bucket >= piece.starts and part.bucket < piece.ends
        and part.first_at is not null
),
inside as (
    select joined.group_id, joined.number, min(joined.first_at) as first_at,
        sum(joined.area + joined.last::numeric * (
            coalesce(tallygate.microseconds(joined.next_at), span.end_us)
            - tallygate.microseconds(joined.last_at)
        )) as area
    from joined join span using (number)
    group by joined.group_id, joined.number
)
select grouped.shape_id, span.number, grouped.kept::text as kept,
    sum(coalesce(inside.area, 0) + coalesce(before.amount, 0)::numeric * (
        coalesce(tallygate.microseconds(inside.first_at), span.end_us) - span.start_us
    )) as area
from grouped cross join span
left join inside using (group_id, number)
left join lateral (
    select level.amount from tallygate.group_level as level
    where level.group_id = grouped.group_id and level.arrived
        and level.at < tallygate.instant(span.start_us)
    order by level.at desc, level.event_id desc
    limit 1
) as before on true
group by grouped.shape_id, span.number, grouped.kept
