-- Compare the levels that a month's events set with those that are kept; return what differs.
with shape as materialized (
    select shape_id, meter from tallygate.rollup_shape
    where active and complete = '{(,)}'::tstzmultirange
        and definition ->> 'aggregation' = 'time_weighted'
),
wanted as (
    select shape.shape_id, event.tenant_id, event.group_id,
        tallygate.instant(event.at_us) as at, event.event_id collate "C" as event_id,
        sum(event.amount) as amount, bool_or(not event.refund) as arrived
    from shape
    cross join lateral tallygate.grouped_events(
        shape.shape_id, $3::text, tallygate.instant($1::bigint), tallygate.instant($2::bigint)
    ) as event
    group by 1, 2, 3, 4, 5
),
kept as (
    select own.shape_id, own.tenant_id, own.group_id, level.at, level.event_id,
        level.amount, level.arrived
    from shape
    join tallygate.rollup_group as own using (shape_id)
    join tallygate.group_level as level using (group_id)
    where level.at >= tallygate.instant($1) and level.at < tallygate.instant($2)
        and ($3::text is null or own.tenant_id = $3)
)
select shape.meter, tenant_id, own.group_values::text as group_values, 0::smallint as level,
    tallygate.microseconds(at) as bucket_us, 'level of ' || event_id as name,
    coalesce(wanted.amount, 0) as wanted,
    -- The same amount, but of an event that is there in one of them only, is one unit off.
    case when wanted.amount = kept.amount then kept.amount + 1 else coalesce(kept.amount, 0) end
        as found
from wanted full join kept using (shape_id, tenant_id, group_id, at, event_id)
join shape using (shape_id)
left join (select group_id, group_values from tallygate.rollup_group) as own using (group_id)
where (wanted.amount, wanted.arrived) is distinct from (kept.amount, kept.arrived)
