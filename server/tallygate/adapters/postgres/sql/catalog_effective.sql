-- Read the version of the catalog that is in effect at an instant.
select version, snapshot::text as snapshot from tallygate.catalog_version
where effective_at <= tallygate.instant($1)
order by version desc limit 1
