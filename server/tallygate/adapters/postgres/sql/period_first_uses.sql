-- Read when tenants were used before the first of their periods, at most $3 microseconds before it
-- was known. Arrays run in parallel.
select first.tenant_id, tallygate.microseconds(first.start_at) as start_us,
    (
        select tallygate.microseconds(min(used.bucket)) from tallygate.usage_minute as used
        where used.tenant_id = first.tenant_id and used.bucket < first.start_at
            and used.bucket >= first.created_at - $3::bigint * interval '1 microsecond'
    ) as first_use_us
from unnest($1::text[], $2::bigint[]) as asked (tenant_id, start_us)
join tallygate.billing_period as first
    on first.tenant_id = asked.tenant_id and first.start_at = tallygate.instant(asked.start_us)
where first.revision = 0 and not exists (
    select from tallygate.billing_period as earlier
    where earlier.tenant_id = first.tenant_id and earlier.start_at < first.start_at
)
