-- Write no more messages for destinations that the catalog no longer names.
update tallygate.destination set active = false where active and name <> all ($1::text[])
