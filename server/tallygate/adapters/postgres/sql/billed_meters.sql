-- Read which meters of $1 have rollups in some stretches, each by days, hours or minutes, from $5
-- to $6 in all. One whose usage is all billed by later periods, or awaits a revision, has none.
select distinct used.meter
from unnest($2::text[], $3::bigint[], $4::bigint[]) as asked (level, from_us, to_us)
cross join lateral (
    select rollup.meter from tallygate.usage_day as rollup
    where asked.level = 'day' and rollup.tenant_id = $1
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select rollup.meter from tallygate.usage_hour as rollup
    where asked.level = 'hour' and rollup.tenant_id = $1
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select rollup.meter from tallygate.usage_minute as rollup
    where asked.level = 'minute' and rollup.tenant_id = $1
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
) as used
where not exists (
    select from tallygate.late_usage as late
    where late.tenant_id = $1 and late.meter = used.meter
        and late.event_time >= tallygate.instant($5::bigint)
        and late.event_time < tallygate.instant($6::bigint)
        and (late.awaited or late.allocated_start > tallygate.instant($5))
)
or exists (
    select from tallygate.usage_event as event
    where event.tenant_id = $1 and event.meter = used.meter
        and event.event_time >= tallygate.instant($5)
        and event.event_time < tallygate.instant($6)
        and not exists (
            select from tallygate.late_usage as late
            where late.tenant_id = $1 and late.meter = used.meter
                and late.event_time = event.event_time and late.event_id = event.event_id
                and (late.awaited or late.allocated_start > tallygate.instant($5))
        )
)
order by used.meter
