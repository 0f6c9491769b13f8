-- Read what these tenants were declared as since an instant, and last before it.
select tenant_id, definition::text as definition,
    effective_at <= tallygate.instant($2::bigint) as before
from tallygate.tenant_history as history
where tenant_id = any ($1::text[])
    and effective_at >= coalesce(
        (
            select max(earlier.effective_at) from tallygate.tenant_history as earlier
            where earlier.tenant_id = history.tenant_id
                and earlier.effective_at <= tallygate.instant($2)
        ),
        tallygate.instant($2)
    )
order by tenant_id, version
