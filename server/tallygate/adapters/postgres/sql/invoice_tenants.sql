-- Read what a tenant was declared as at one instant, and what it became up to another, by version.
select version, tallygate.microseconds(effective_at) as at_us, definition::text as definition
from tallygate.tenant_history
where tenant_id = $1
    and effective_at <= tallygate.instant($3::bigint)
    and version >= coalesce(
        (
            select max(version) from tallygate.tenant_history
            where tenant_id = $1 and effective_at <= tallygate.instant($2::bigint)
        ),
        0
    )
order by version
limit $4
