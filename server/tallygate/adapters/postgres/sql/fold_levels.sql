-- Add up levels times microseconds by group, those that were carried in being $9 and $10, in
-- parallel; other arguments as in `fold_figures`. Each level holds until the next.
with level as (
    select group_values, at, event_id collate "C" as event_id, sum(amount) as amount
    from tallygate.folded_events(
        $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
    )
    group by 1, 2, 3
    having bool_or(not refund)
), inside as (
    select group_values, tallygate.microseconds(min(at)) as first_us, sum(amount * (
        coalesce(tallygate.microseconds(next_at), $5) - tallygate.microseconds(at)
    )) as area
    from (
        select level.*, lead(at) over (partition by group_values order by at, event_id) as next_at
        from level
    ) as joined
    group by group_values
), carried as (
    select kept::jsonb as group_values, amount
    from unnest($9::text[], $10::bigint[]) as carried (kept, amount)
)
select coalesce(inside.group_values, carried.group_values)::text as kept,
    coalesce(inside.area, 0) + coalesce(
        carried.amount::numeric * (coalesce(inside.first_us, $5) - $4), 0
    ) as quantity
from inside full join carried on carried.group_values = inside.group_values
