-- Read which meters of $1 have rollups in some stretches, each by days, hours or minutes.
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
order by used.meter
