-- Keep the crossings that were not told before; return those.
insert into tallygate.threshold_crossing (
    tenant_id, limit_id, window_start, ratio_ppm, meter,
    threshold, used, limit_units, window_end, crossed_at, scope
)
select
    tenant_id, limit_id, tallygate.instant(window_start_us), ratio_ppm, meter,
    threshold, used, limit_units, tallygate.instant(window_end_us),
    tallygate.instant(crossed_at_us), scope
from unnest(
    $1::text[], $2::text[], $3::bigint[], $4::integer[], $5::text[],
    $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::text[]
) as crossing (
    tenant_id, limit_id, window_start_us, ratio_ppm, meter,
    threshold, used, limit_units, window_end_us, crossed_at_us, scope
)
on conflict do nothing
returning
    tenant_id, limit_id, scope, tallygate.microseconds(window_start) as window_start_us, ratio_ppm
