-- Add usage by minute to the rollups; say which change of shapes is the newest, 0 for none. Columns
-- come as text, joined by $8; one row per bucket. Text that is empty as a whole is one empty value,
-- which string_to_array takes for none.
select coalesce((select max(shape_id) from tallygate.rollup_shape), 0)
from tallygate.add_usage(
    case when $1::text = '' then array[''] else string_to_array($1, $8::text) end,
    case when $2::text = '' then array[''] else string_to_array($2, $8) end,
    string_to_array($3::text, $8)::bigint[], string_to_array($4::text, $8)::bigint[],
    string_to_array($5::text, $8)::numeric[], string_to_array($6::text, $8)::bigint[],
    string_to_array($7::text, $8)::bigint[]
)
