-- Read the shape in effect that is $2, if it has all events from $3 to $4, or of levels all there
-- are: a level is from before.
select shape_id, complete = '{(,)}'::tstzmultirange as all_of_it
from tallygate.rollup_shape
where active and meter = $1 and definition = $2::jsonb
    and complete @> tstzrange(tallygate.instant($3::bigint), tallygate.instant($4::bigint))
    and (complete = '{(,)}'::tstzmultirange or definition ->> 'aggregation' <> 'time_weighted')
