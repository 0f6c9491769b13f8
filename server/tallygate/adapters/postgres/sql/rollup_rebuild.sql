-- Make the rollups of a shape from $2 to $3 anew; it is then whole from $4 to $5, null for ever.
select tallygate.rebuild_rollups(
    $1::integer, tallygate.instant($2::bigint), tallygate.instant($3::bigint),
    tstzrange(tallygate.instant($4::bigint), tallygate.instant($5::bigint))
)
