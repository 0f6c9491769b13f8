-- Keep the falls to a low mark that were not told before; return those.
insert into tallygate.balance_low (
    tenant_id, limit_id, threshold, crossed_at, meter, remaining
)
select tenant_id, limit_id, threshold, tallygate.instant(crossed_at_us), meter, remaining
from unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[]
) as low (tenant_id, limit_id, threshold, crossed_at_us, meter, remaining)
on conflict do nothing
returning tenant_id, limit_id, threshold, tallygate.microseconds(crossed_at) as crossed_at_us
