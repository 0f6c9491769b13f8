-- Compare a month's levels, joined by minute, hour and day, with how the rollups have them.
with shape as materialized (
    select shape_id, meter from tallygate.rollup_shape
    where active and complete = '{(,)}'::tstzmultirange
        and definition ->> 'aggregation' = 'time_weighted'
),
grouped as materialized (
    select shape.meter, own.tenant_id, own.group_id, own.group_values
    from shape join tallygate.rollup_group as own using (shape_id)
    where $3::text is null or own.tenant_id = $3
),
wanted as (
    select group_id, level, bucket, min(at) as first_at,
        sum(amount::numeric * coalesce(
            tallygate.microseconds(next_at) - tallygate.microseconds(at), 0
        )) as area,
        (array_agg(amount order by at desc, event_id desc))[1] as last,
        max(at) as last_at
    from (
        select found.*, lead(found.at) over (
            partition by found.group_id, found.level, found.bucket
            order by found.at, found.event_id
        ) as next_at
        from (
            select group_id, of.level::smallint as level,
                tallygate.instant(tallygate.bucket_of(tallygate.microseconds(set.at), of.level))
                    as bucket,
                set.at, set.event_id, set.amount
            from grouped join tallygate.group_level as set using (group_id)
            cross join generate_series(0, 2) as of (level)
            where set.arrived
                and set.at >= tallygate.instant($1::bigint)
                and set.at < tallygate.instant($2::bigint)
        ) as found
    ) as found
    group by group_id, level, bucket
),
rolled as (
    select group_id, part.level, part.bucket, part.first_at, part.area, part.last, part.last_at
    from grouped join tallygate.group_usage as part using (group_id)
    where part.first_at is not null
        and part.bucket >= tallygate.instant($1) and part.bucket < tallygate.instant($2)
)
select grouped.meter, grouped.tenant_id, grouped.group_values::text as group_values, level,
    tallygate.microseconds(bucket) as bucket_us, figure.name, figure.wanted, figure.found
from wanted full join rolled using (group_id, level, bucket)
join grouped using (group_id)
cross join lateral (
    select * from (values
        ('area', coalesce(wanted.area, 0), coalesce(rolled.area, 0)),
        ('last', coalesce(wanted.last, 0)::numeric, coalesce(rolled.last, 0)::numeric),
        ('first_at', coalesce(tallygate.microseconds(wanted.first_at), 0),
            coalesce(tallygate.microseconds(rolled.first_at), 0)),
        ('last_at', coalesce(tallygate.microseconds(wanted.last_at), 0),
            coalesce(tallygate.microseconds(rolled.last_at), 0))
    ) as pair (name, wanted, found)
    where pair.wanted <> pair.found
    limit 1
) as figure
