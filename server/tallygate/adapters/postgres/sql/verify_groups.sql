-- Compare a month's events, added up by group, with the rollups of groups; return what differs.
with shape as materialized (
    select shape_id, meter, definition ->> 'aggregation' = 'latest' as latest
    from tallygate.rollup_shape
    where active and definition is not null and complete = '{(,)}'::tstzmultirange
),
wanted as (
    select shape.shape_id, event.tenant_id, event.group_id, of.level::smallint as level,
        tallygate.instant(tallygate.bucket_of(event.at_us, of.level)) as bucket,
        count(*) filter (where not event.refund) as count,
        sum(event.amount) as sum,
        coalesce(max(event.amount) filter (where not event.refund), 0) as max,
        coalesce(min(event.amount) filter (where not event.refund), 0) as min,
        (array_agg(event.amount order by event.at_us desc, event.event_id collate "C" desc)
            filter (where not event.refund and shape.latest))[1] as last,
        (array_agg(event.event_id order by event.at_us desc, event.event_id collate "C" desc)
            filter (where not event.refund and shape.latest))[1] as last_id
    from shape
    cross join lateral tallygate.grouped_events(
        shape.shape_id, $3::text, tallygate.instant($1::bigint), tallygate.instant($2::bigint)
    ) as event
    cross join generate_series(0, 2) as of (level)
    group by 1, 2, 3, 4, 5
),
rolled as (
    select own.shape_id, own.tenant_id, own.group_id, part.level, part.bucket,
        part.count, part.sum, part.max, part.min,
        case when shape.latest then part.last end as last,
        case when shape.latest then part.last_id end as last_id
    from shape
    join tallygate.rollup_group as own using (shape_id)
    join tallygate.group_usage as part using (group_id)
    where part.bucket >= tallygate.instant($1) and part.bucket < tallygate.instant($2)
        and ($3::text is null or own.tenant_id = $3)
)
select shape.meter, differing.tenant_id, own.group_values::text as group_values, differing.level,
    tallygate.microseconds(differing.bucket) as bucket_us, differing.name,
    differing.wanted, differing.found
from (
    select shape_id, tenant_id, group_id, level, bucket, figure.*
    from wanted full join rolled using (shape_id, tenant_id, group_id, level, bucket)
    cross join lateral (
        select * from (values
            ('count', coalesce(wanted.count, 0)::numeric, coalesce(rolled.count, 0)::numeric),
            ('sum', coalesce(wanted.sum, 0), coalesce(rolled.sum, 0)),
            ('max', coalesce(wanted.max, 0), coalesce(rolled.max, 0)),
            ('min', coalesce(wanted.min, 0), coalesce(rolled.min, 0)),
            ('last', coalesce(wanted.last, 0), coalesce(rolled.last, 0)),
            ('last_id', 1, case when wanted.last_id is distinct from rolled.last_id
                then 0 else 1 end)
        ) as pair (name, wanted, found)
        where pair.wanted <> pair.found
        limit 1
    ) as figure
) as differing
join shape using (shape_id)
left join tallygate.rollup_group as own using (group_id)
