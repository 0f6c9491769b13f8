-- Write the next revision of a period's invoice.
insert into tallygate.invoice (
    tenant_id, period_start, revision, period_end, currency, catalogs, lines,
    subtotal, discounts, credits, total, document, reason, actor
)
select
    $1, tallygate.instant($2::bigint),
    coalesce(max(revision), 0) + 1,
    tallygate.instant($3::bigint), $4, $5::bigint[],
    convert_from($10::bytea, 'UTF8')::jsonb -> 'lines',
    $6::numeric, $7::numeric, $8::numeric, $9::numeric, $10, $11, $12
from tallygate.invoice
where tenant_id = $1 and period_start = tallygate.instant($2)
