-- Count the different values of which some use is left, by group, beside figures; arguments as in
-- `fold_figures`.
select group_values::text as kept, sum(count)::bigint as count, sum(sum) as sum,
    coalesce(max(max), 0) as max, coalesce(min(min), 0) as min,
    count(*) filter (where part_key is not null and sum > 0) as quantity
from (
    select group_values, part_key collate "C" as part_key,
        count(*) filter (where not refund) as count, sum(amount) as sum,
        max(amount) filter (where not refund) as max, min(amount) filter (where not refund) as min
    from tallygate.folded_events(
        $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
    )
    group by 1, 2
) as value
group by group_values
