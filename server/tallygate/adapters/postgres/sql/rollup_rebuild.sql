-- Make a meter's rollups from $2 to $3 anew; its shape is then whole from $4 to $5, null for ever.
select tallygate.rebuild_rollups(
    shape_id, tallygate.instant($2::bigint), tallygate.instant($3::bigint),
    tstzrange(tallygate.instant($4::bigint), tallygate.instant($5::bigint))
)
from tallygate.rollup_shape
where meter = $1::text and active and definition is not null
