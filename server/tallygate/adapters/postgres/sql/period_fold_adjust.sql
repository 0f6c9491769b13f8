-- Freeze by how much a period bills that others' meters, which are folded, would have been another.
-- Arrays run in parallel; no start is all before the first period.
insert into tallygate.period_adjustment (
    tenant_id, start_at, revision, closed_start, meter, grouped, aggregation, count, sum, max, min,
    quantity, state
)
select $1, tallygate.instant($2::bigint), 1, tallygate.instant(closed_us), meter, grouped,
    aggregation, count, sum, max, min, quantity,
    jsonb_strip_nulls(jsonb_build_object('revision', revision, 'carried', carried))
from unnest(
    $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::numeric[], $9::bigint[],
    $10::bigint[], $11::numeric[], $12::integer[], $13::bigint[]
) as late (
    closed_us, meter, grouped, aggregation, count, sum, max, min, quantity, revision, carried
)
