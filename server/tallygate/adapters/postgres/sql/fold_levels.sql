-- Add up levels times microseconds by group, beside figures. Levels that were carried in are $9 and
-- $10, in parallel; other arguments as in `fold_figures`. Each level holds until the next.
with level as (
    select group_values, at, event_id collate "C" as event_id, sum(amount) as amount,
        bool_or(not refund) as arrived, count(*) filter (where not refund) as count,
        max(amount) filter (where not refund) as max, min(amount) filter (where not refund) as min
    from tallygate.folded_events(
        $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
    )
    group by 1, 2, 3
), inside as (
    select group_values, sum(count)::bigint as count, sum(amount) as sum, max(max) as max,
        min(min) as min, min(tallygate.microseconds(at)) filter (where arrived) as first_us,
        sum(amount * (
            coalesce(tallygate.microseconds(next_at), $5) - tallygate.microseconds(at)
        )) filter (where arrived) as area
    from (
        select level.*, lead(at) over (
            partition by group_values, arrived order by at, event_id
        ) as next_at
        from level
    ) as joined
    group by group_values
), carried as (
    select kept::jsonb as group_values, amount
    from unnest($9::text[], $10::bigint[]) as carried (kept, amount)
)
select coalesce(inside.group_values, carried.group_values)::text as kept,
    inside.group_values is not null as used,
    coalesce(inside.count, 0) as count, coalesce(inside.sum, 0) as sum,
    coalesce(inside.max, 0) as max, coalesce(inside.min, 0) as min,
    coalesce(inside.area, 0) + coalesce(
        carried.amount::numeric * (coalesce(inside.first_us, $5) - $4), 0
    ) as quantity
from inside full join carried on carried.group_values = inside.group_values
