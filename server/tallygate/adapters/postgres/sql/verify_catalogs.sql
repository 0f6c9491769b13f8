-- Read which destinations each version of the catalog had, oldest first.
select
    version, tallygate.microseconds(created_at) as created_at_us,
    coalesce(snapshot -> 'destinations', '[]'::jsonb)::text as destinations
from tallygate.catalog_version
order by version
