-- Add up the events that a period's number is made of, by group; `folded_events` has the arguments.
select group_values::text as kept, count(*) filter (where not refund) as count, sum(amount) as sum,
    coalesce(max(amount) filter (where not refund), 0) as max,
    coalesce(min(amount) filter (where not refund), 0) as min
from tallygate.folded_events(
    $1::text, $2::text, $3::jsonb, $4::bigint, $5::bigint, $6::integer, $7::bigint, $8::boolean
)
group by group_values
