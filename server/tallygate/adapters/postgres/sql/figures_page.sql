-- Read what the next tenants used of each meter since two days' starts; those without usage too.
with recursive walked as (
    (
        select tenant_id from tallygate.usage_day
        where tenant_id > $1::text
        order by tenant_id
        limit 1
    )
    union all
    -- From one tenant to the next by the index, over all meters and days between.
    select following.tenant_id
    from walked cross join lateral (
        select day.tenant_id from tallygate.usage_day as day
        where day.tenant_id > walked.tenant_id
        order by day.tenant_id
        limit 1
    ) as following
)
select page.tenant_id, used.meter,
    used.day_events, used.day_units, used.month_events, used.month_units
from (select tenant_id from walked limit $2::integer) as page
left join lateral (
    select day.meter,
        coalesce(sum(day.count) filter (where day.bucket >= tallygate.instant($3::bigint)), 0)
            as day_events,
        coalesce(sum(day.sum) filter (where day.bucket >= tallygate.instant($3::bigint)), 0)
            as day_units,
        sum(day.count) as month_events,
        sum(day.sum) as month_units
    from tallygate.usage_day as day
    where day.tenant_id = page.tenant_id and day.bucket >= tallygate.instant($4::bigint)
    group by day.meter
) as used on true
order by page.tenant_id, used.meter
