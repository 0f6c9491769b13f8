-- Add up usage of $1 over stretches of rollups and single events, by the place they are asked for.
select
    asked.place,
    sum(used.count)::bigint as count,
    sum(used.sum) as sum,
    coalesce(max(used.max) filter (where used.count > 0), 0) as max,
    coalesce(min(used.min) filter (where used.count > 0), 0) as min
from unnest($2::integer[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
    as asked (place, meter, level, from_us, to_us)
cross join lateral (
    select rollup.count, rollup.sum, rollup.max, rollup.min
    from tallygate.usage_day as rollup
    where asked.level = 'day' and rollup.tenant_id = $1 and rollup.meter = asked.meter
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select rollup.count, rollup.sum, rollup.max, rollup.min
    from tallygate.usage_hour as rollup
    where asked.level = 'hour' and rollup.tenant_id = $1 and rollup.meter = asked.meter
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select rollup.count, rollup.sum, rollup.max, rollup.min
    from tallygate.usage_minute as rollup
    where asked.level = 'minute' and rollup.tenant_id = $1 and rollup.meter = asked.meter
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select (event.amount > 0)::integer, event.amount, event.amount, event.amount
    from tallygate.usage_event as event
    where asked.level = 'event' and event.tenant_id = $1 and event.meter = asked.meter
        and event.event_time >= tallygate.instant(asked.from_us)
        and event.event_time < tallygate.instant(asked.to_us)
) as used
group by asked.place
