-- Count the different values of which some use is left, by group; arguments as in `fold_figures`.
select kept, count(*) filter (where units > 0) as quantity
from (
    select group_values::text as kept, part_key collate "C" as value, sum(part_units) as units
    from tallygate.folded_events(
        $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
    )
    where part_key is not null
    group by 1, 2
) as found
group by kept
