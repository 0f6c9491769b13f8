-- Add up the pairs of what was reconciled around invoices since $1, and how many were exact, by
-- kind; of each revision what was found last.
select kind, sum(pairs)::bigint as pairs, sum(exact)::bigint as exact
from (
    select distinct on (tenant_id, period_start, kind, revision) kind, pairs, exact
    from tallygate.reconcile_invoicing
    where reconciled_at >= tallygate.instant($1::bigint)
    order by tenant_id, period_start, kind, revision, reconciled_at desc
) as newest
group by kind
