-- Read the newest version of the catalog, effective or not.
select version, snapshot::text as snapshot,
    tallygate.microseconds(effective_at) as effective_at_us
from tallygate.catalog_version
order by version desc limit 1
