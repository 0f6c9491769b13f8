-- Read the rollups and single events that usage of a meter is made of, by time, after a place.
select asked.level, used.at_us, used.count, used.sum, used.id
from unnest($3::text[], $4::bigint[], $5::bigint[]) as asked (level, from_us, to_us)
cross join lateral (
    select tallygate.microseconds(rollup.bucket) as at_us, rollup.count, rollup.sum, '' as id
    from tallygate.usage_day as rollup
    where asked.level = 'day' and rollup.tenant_id = $1 and rollup.meter = $2
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select tallygate.microseconds(rollup.bucket), rollup.count, rollup.sum, ''
    from tallygate.usage_hour as rollup
    where asked.level = 'hour' and rollup.tenant_id = $1 and rollup.meter = $2
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select tallygate.microseconds(rollup.bucket), rollup.count, rollup.sum, ''
    from tallygate.usage_minute as rollup
    where asked.level = 'minute' and rollup.tenant_id = $1 and rollup.meter = $2
        and rollup.bucket >= tallygate.instant(asked.from_us)
        and rollup.bucket < tallygate.instant(asked.to_us)
    union all
    select
        tallygate.microseconds(event.event_time), (event.amount > 0)::integer, event.amount,
        event.event_id
    from tallygate.usage_event as event
    where asked.level = 'event' and event.tenant_id = $1 and event.meter = $2
        and event.event_time >= tallygate.instant(asked.from_us)
        and event.event_time < tallygate.instant(asked.to_us)
) as used
where (used.at_us, used.id) > ($6::bigint, $7::text)
order by used.at_us, used.id
limit $8
