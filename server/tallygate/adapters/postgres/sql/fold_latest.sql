-- Find the amount of the last event, by group, beside figures; arguments as in `fold_figures`.
select group_values::text as kept, sum(count)::bigint as count, sum(sum) as sum,
    coalesce(max(max), 0) as max, coalesce(min(min), 0) as min,
    coalesce((array_agg(latest order by at desc) filter (where latest is not null))[1], 0)
        as quantity
from (
    select group_values, at, count(*) filter (where not refund) as count, sum(amount) as sum,
        max(amount) filter (where not refund) as max, min(amount) filter (where not refund) as min,
        (array_agg(amount order by event_id collate "C" desc) filter (where not refund))[1]
            as latest
    from tallygate.folded_events(
        $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
    )
    group by group_values, at
) as moment
group by group_values
