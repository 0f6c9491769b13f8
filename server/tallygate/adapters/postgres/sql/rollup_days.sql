-- List the days on which the meter of a shape was used, and whether its rollups are whole then.
select tallygate.microseconds(day.bucket) as start_us, sum(day.count)::bigint as events,
    shape.complete @> tstzrange(day.bucket, day.bucket + interval '1 day') as whole,
    exists (
        select from tallygate.month_dropped
        where month = date_trunc('month', day.bucket, 'UTC')
    ) as archived
from tallygate.rollup_shape as shape join tallygate.usage_day as day using (meter)
where shape.shape_id = $1::integer and shape.active and shape.definition is not null
group by day.bucket, shape.complete
order by day.bucket
