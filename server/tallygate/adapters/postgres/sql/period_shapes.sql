-- Read the shapes in effect, and whether they have all events from $1 to $2; of levels, which last
-- from any time before, all up to $2.
select shape_id, meter, definition::text as definition,
    complete @> tstzrange(
        case when definition ->> 'aggregation' <> 'time_weighted'
            then tallygate.instant($1::bigint) end,
        tallygate.instant($2::bigint)
    ) as whole
from tallygate.rollup_shape
where active and definition is not null and ($3::text is null or meter = $3)
