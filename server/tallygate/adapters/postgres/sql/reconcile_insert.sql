-- Store what pairs came to.
insert into tallygate.reconciliation (
    run_id, tenant_id, meter, period_start, period_end, verdict, figures, repairs
)
select $1::text, tenant_id, meter, tallygate.instant(start_us), tallygate.instant(end_us),
    verdict, figures, repairs
from unnest(
    $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::jsonb[], $8::jsonb[]
) as row (tenant_id, meter, start_us, end_us, verdict, figures, repairs)
