-- Say whether a level of a tenant's meter may last into $3 that is in archives alone: where its
-- events were dropped and, unless its groups tell them apart ($4) and have later ones, no other is.
with dropped as materialized (
    select dropped.month
    from tallygate.month_dropped as dropped
    join tallygate.month_archive_usage as had using (archive_id)
    where had.tenant_id = $1::text and had.meter = $2::text
        and dropped.month < tallygate.instant($3::bigint)
),
shape as (
    select shape_id from tallygate.rollup_shape
    where active and meter = $2 and definition ->> 'aggregation' = 'time_weighted'
        and complete @> tstzrange(null, tallygate.instant($3)) and $4::boolean
)
select exists (select from dropped) and (
    not exists (select from shape)
    or exists (
        select from shape
        join tallygate.rollup_group as own using (shape_id)
        left join lateral (
            select level.at, level.amount from tallygate.group_level as level
            where level.group_id = own.group_id and level.arrived
                and level.at < tallygate.instant($3)
            order by level.at desc, level.event_id desc
            limit 1
        ) as last on true
        where own.tenant_id = $1 and (
            own.group_values ? '__other__'
            or (
                last.amount > 0
                and date_trunc('month', last.at, 'UTC') in (select month from dropped)
            )
        )
    )
)
