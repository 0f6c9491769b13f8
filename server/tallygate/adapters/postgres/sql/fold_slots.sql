-- Find the slot of percentile $9, in millionths, by group; other arguments as in `fold_figures`.
select kept, min(slot) filter (
    where passed >= greatest(1, ceil(events * $9::bigint / 1000000))
) as quantity
from (
    select kept, slot, sum(events) over (partition by kept order by slot) as passed,
        sum(events) over (partition by kept) as events
    from (
        select group_values::text as kept, part_key::integer as slot, sum(part_units) as events
        from tallygate.folded_events(
            $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint,
            $8::boolean
        )
        where part_key is not null
        group by 1, 2
    ) as found
) as ranked
group by kept
