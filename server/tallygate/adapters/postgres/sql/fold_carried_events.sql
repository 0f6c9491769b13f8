-- Read a meter's levels just before $4 from all its events before, by group.
select kept, amount
from (
    select distinct on (group_values) group_values::text as kept, amount
    from (
        select group_values, at, event_id collate "C" as event_id, sum(amount)::bigint as amount
        from tallygate.folded_events(
            $1::text, $2::text, $3::jsonb, -62135596800000000, $4::bigint, 2147483647,
            253402300799000000, false
        )
        group by 1, 2, 3
        having bool_or(not refund)
    ) as level
    order by group_values, at desc, event_id desc
) as newest
where amount <> 0
