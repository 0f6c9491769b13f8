-- Note what a revision of a period or of its invoice came to in a run.
insert into tallygate.reconcile_invoicing (
    tenant_id, period_start, period_end, kind, revision, run_id, verdict, pairs, exact,
    reconciled_at
)
values (
    $1, tallygate.instant($2::bigint), tallygate.instant($3::bigint), $4, $5::integer, $6, $7,
    $8::bigint, $9::bigint, tallygate.instant($10::bigint)
)
on conflict do nothing
