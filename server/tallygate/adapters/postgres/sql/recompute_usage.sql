-- Make the rollups of a tenant's meter on a day anew from its events; count what was otherwise.
select tallygate.recompute_usage($1::text, $2::text, tallygate.instant($3::bigint))
