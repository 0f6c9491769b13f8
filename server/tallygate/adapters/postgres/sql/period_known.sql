-- Read a page of tenants that are declared or have usage: the newest period, or the first use
-- since $3 where there is none yet.
with recursive used (tenant_id) as (
    (
        select tenant_id from tallygate.usage_day where tenant_id > $1
        order by tenant_id limit 1
    )
    union all
    select (
        select day.tenant_id from tallygate.usage_day as day
        where day.tenant_id > used.tenant_id order by day.tenant_id limit 1
    )
    from used where used.tenant_id is not null
), page as (
    select tenant_id from (
        (select tenant_id from used where tenant_id is not null limit $2)
        union
        (
            select tenant_id from tallygate.tenant where tenant_id > $1
            order by tenant_id limit $2
        )
    ) as either
    order by tenant_id limit $2
)
select page.tenant_id, newest.state = 'open' as open,
    tallygate.microseconds(newest.start_at) as start_us,
    tallygate.microseconds(newest.end_at) as end_us,
    (
        select tallygate.microseconds(min(used.bucket)) from tallygate.usage_minute as used
        where newest.start_at is null and used.tenant_id = page.tenant_id
            and used.bucket >= tallygate.instant($3::bigint)
    ) as first_use_us
from page
left join lateral (
    select start_at, end_at, state from tallygate.billing_period
    where tenant_id = page.tenant_id order by start_at desc limit 1
) as newest on true
order by page.tenant_id
