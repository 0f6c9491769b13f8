-- Read a meter's levels just before $4 from the rollups of its shape $3, by group.
select own.group_values::text as kept, before.amount
from tallygate.rollup_group as own
cross join lateral (
    select level.amount from tallygate.group_level as level
    where level.group_id = own.group_id and level.arrived
        and level.at < tallygate.instant($4::bigint)
    order by level.at desc, level.event_id desc
    limit 1
) as before
where own.tenant_id = $1::text and before.amount <> 0
    and own.shape_id = (
        select shape_id from tallygate.rollup_shape
        where active and meter = $2::text and definition = $3::jsonb
            and complete = '{(,)}'::tstzmultirange
    )
