-- Freeze what the meters of a revision come to that are folded. Arrays run in parallel.
insert into tallygate.period_total (
    tenant_id, start_at, revision, meter, grouped, aggregation, count, sum, max, min, quantity,
    state
)
select $1, tallygate.instant($2::bigint), $3, meter, grouped, aggregation, count, sum, max, min,
    quantity, case when carried is not null then jsonb_build_object('carried', carried) end
from unnest(
    $4::text[], $5::text[], $6::text[], $7::bigint[], $8::numeric[], $9::bigint[], $10::bigint[],
    $11::numeric[], $12::bigint[]
) as total (meter, grouped, aggregation, count, sum, max, min, quantity, carried)
