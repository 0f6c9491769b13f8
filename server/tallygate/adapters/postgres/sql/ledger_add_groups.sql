-- Add usage by minute to the rollups of groups; what the arguments hold is said of the function.
select tallygate.add_groups($1::jsonb, $2::jsonb, $3::jsonb, $4::jsonb)
