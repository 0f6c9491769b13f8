-- Find the next tenants and meters with usage after a pair, and when each began and last had any.
with recursive pair as (
    (
        select tenant_id, meter from tallygate.usage_day
        where (tenant_id, meter) > ($1::text, $2::text)
        order by tenant_id, meter
        limit 1
    )
    union all
    -- From one pair to the next by the index, over all days between.
    select following.tenant_id, following.meter
    from pair cross join lateral (
        select day.tenant_id, day.meter from tallygate.usage_day as day
        where (day.tenant_id, day.meter) > (pair.tenant_id, pair.meter)
        order by day.tenant_id, day.meter
        limit 1
    ) as following
)
select pair.tenant_id, pair.meter, known.tenant_id is not null as known,
    tallygate.microseconds(first.bucket) as first_us,
    tallygate.microseconds(last.bucket) as last_us
from (select tenant_id, meter from pair limit $3::integer) as pair
left join tallygate.anomaly_series as known
    on known.tenant_id = pair.tenant_id and known.meter = pair.meter
left join lateral (
    select hour.bucket from tallygate.usage_hour as hour
    where hour.tenant_id = pair.tenant_id and hour.meter = pair.meter
        and hour.bucket >= tallygate.instant($4::bigint)
    order by hour.bucket
    limit 1
) as first on true
left join lateral (
    select hour.bucket from tallygate.usage_hour as hour
    where hour.tenant_id = pair.tenant_id and hour.meter = pair.meter
    order by hour.bucket desc
    limit 1
) as last on true
order by pair.tenant_id, pair.meter
