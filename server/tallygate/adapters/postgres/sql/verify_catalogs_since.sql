-- Read the catalogs that were in effect since an instant, the one before it included.
select version, snapshot::text as snapshot
from tallygate.catalog_version
where effective_at <= now()
    and effective_at >= coalesce(
        (
            select max(effective_at) from tallygate.catalog_version
            where effective_at <= tallygate.instant($1::bigint)
        ),
        tallygate.instant($1)
    )
order by version
