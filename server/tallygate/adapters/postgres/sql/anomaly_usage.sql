-- Read the usage by hour of each of these series, from one instant to before another.
select usage.tenant_id, usage.meter, tallygate.microseconds(usage.bucket) as bucket_us,
    usage.sum as units, usage.count as events
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
    as asked (tenant_id, meter, from_us, to_us)
join tallygate.usage_hour as usage
    on usage.tenant_id = asked.tenant_id and usage.meter = asked.meter
    and usage.bucket >= tallygate.instant(asked.from_us)
    and usage.bucket < tallygate.instant(asked.to_us)
