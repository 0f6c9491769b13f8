-- Write a version of the catalog.
insert into tallygate.catalog_version (version, document, snapshot, effective_at)
values ($1, $2, $3::jsonb, tallygate.instant($4))
