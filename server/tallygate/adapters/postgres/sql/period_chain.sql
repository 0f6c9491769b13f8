-- Read tenants' periods that touch a stretch, and the one before and the one after these.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us
from unnest($1::text[]) as asked (tenant_id)
cross join lateral (
    select tenant_id, start_at, end_at from tallygate.billing_period
    where tenant_id = asked.tenant_id
        and start_at <= tallygate.instant($3::bigint) and end_at > tallygate.instant($2::bigint)
    union
    (
        select tenant_id, start_at, end_at from tallygate.billing_period
        where tenant_id = asked.tenant_id and end_at <= tallygate.instant($2)
        order by end_at desc limit 1
    )
    union
    (
        select tenant_id, start_at, end_at from tallygate.billing_period
        where tenant_id = asked.tenant_id and start_at > tallygate.instant($3)
        order by start_at limit 1
    )
) as period
order by period.tenant_id, period.start_at
