-- Find the slot of percentile $9, in millionths, by group, beside figures; other arguments as in
-- `fold_figures`.
select group_values::text as kept, sum(count)::bigint as count, sum(sum) as sum,
    coalesce(max(max), 0) as max, coalesce(min(min), 0) as min,
    coalesce(min(slot) filter (
        where passed >= greatest(1, ceil(uses * $9::bigint / 1000000))
    ), 0) as quantity
from (
    select slot.*, sum(count) over (partition by group_values order by slot) as passed,
        sum(count) over (partition by group_values) as uses
    from (
        select group_values, part_key::integer as slot,
            count(*) filter (where not refund) as count, sum(amount) as sum,
            max(amount) filter (where not refund) as max,
            min(amount) filter (where not refund) as min
        from tallygate.folded_events(
            $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
        )
        group by 1, 2
    ) as slot
) as ranked
group by group_values
