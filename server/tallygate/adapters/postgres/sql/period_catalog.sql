-- Read the version of the catalog that is in effect now.
select snapshot::text as snapshot from tallygate.catalog_version
where effective_at <= now()
order by version desc limit 1
