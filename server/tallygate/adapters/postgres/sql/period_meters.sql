-- Read the meters of which a tenant has events, by the index, and give sorts of them room.
with recursive metered (name) as (
    (
        select meter from tallygate.usage_event where tenant_id = $1 order by meter limit 1
    )
    union all
    select (
        select event.meter from tallygate.usage_event as event
        where event.tenant_id = $1 and event.meter > metered.name
        order by event.meter limit 1
    )
    from metered where metered.name is not null
)
select array_agg(name) filter (where name is not null) as meters,
    set_config('work_mem', '64MB', true) as memory
from metered
