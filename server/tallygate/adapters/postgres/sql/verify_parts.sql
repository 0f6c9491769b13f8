-- Compare a month's values and slots, by the events, with those in the rollups of groups.
with shape as materialized (
    select shape_id, meter from tallygate.rollup_shape
    where active and complete = '{(,)}'::tstzmultirange
        and definition ->> 'aggregation' in ('unique', 'percentile')
),
wanted as (
    select shape.shape_id, event.tenant_id, event.group_id, of.level::smallint as level,
        tallygate.instant(tallygate.bucket_of(event.at_us, of.level)) as bucket,
        event.part_key collate "C" as key, sum(event.part_units) as units
    from shape
    cross join lateral tallygate.grouped_events(
        shape.shape_id, $3::text, tallygate.instant($1::bigint), tallygate.instant($2::bigint)
    ) as event
    cross join generate_series(0, 2) as of (level)
    where event.part_key is not null
    group by 1, 2, 3, 4, 5, 6
),
rolled as (
    select own.shape_id, own.tenant_id, own.group_id, part.level, part.bucket, part.key, part.units
    from shape
    join tallygate.rollup_group as own using (shape_id)
    join tallygate.group_part as part using (group_id)
    where part.bucket >= tallygate.instant($1) and part.bucket < tallygate.instant($2)
        and ($3::text is null or own.tenant_id = $3)
)
select shape.meter, tenant_id, own.group_values::text as group_values, level,
    tallygate.microseconds(bucket) as bucket_us, 'units of ' || key as name,
    coalesce(wanted.units, 0) as wanted, coalesce(rolled.units, 0) as found
from wanted full join rolled using (shape_id, tenant_id, group_id, level, bucket, key)
join shape using (shape_id)
left join (select group_id, group_values from tallygate.rollup_group) as own using (group_id)
where wanted.units is distinct from rolled.units
