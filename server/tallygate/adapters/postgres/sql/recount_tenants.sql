-- Read tenants that have usage, after one and up to a number: one look into the index for each.
with recursive found as (
    (
        select tenant_id from tallygate.usage_day
        where tenant_id > $1 order by tenant_id limit 1
    )
    union all
    select (
        select following.tenant_id from tallygate.usage_day as following
        where following.tenant_id > found.tenant_id order by following.tenant_id limit 1
    )
    from found where found.tenant_id is not null
)
select tenant_id from found where tenant_id is not null limit $2
