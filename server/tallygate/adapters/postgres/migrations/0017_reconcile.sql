-- Runs of reconciliation by their kind, and what periods came to around their invoices. The run and
-- result tables are small or only added to: their locks are held for moments.

alter table tallygate.reconcile_run
    add column kind text collate "C" not null
        generated always as (split_part(run_id, '-', 1)) stored;
comment on column tallygate.reconcile_run.kind is
    'daily, manual, or before or after an invoice.';

alter table tallygate.reconciliation
    drop constraint reconciliation_verdict_check,
    add constraint reconciliation_verdict_check check (
        verdict in ('exact', 'in_flight', 'late', 'archived', 'drift', 'unknown')
    );

create table tallygate.reconcile_invoicing (
    tenant_id text collate "C" not null,
    period_start timestamptz not null,
    period_end timestamptz not null check (period_end > period_start),
    kind text collate "C" not null check (kind in ('before', 'after')),
    revision integer not null check (revision > 0),
    run_id text collate "C" not null,
    verdict text not null
        check (verdict in ('exact', 'in_flight', 'late', 'archived', 'drift', 'unknown')),
    pairs bigint not null check (pairs >= 0),
    exact bigint not null check (exact between 0 and pairs),
    reconciled_at timestamptz not null,
    primary key (tenant_id, period_start, kind, revision, run_id)
);
comment on table tallygate.reconcile_invoicing is
    'What each closed period came to before it was invoiced, and what each invoice came to; the'
    ' newest row of a revision counts. Append-only.';
comment on column tallygate.reconcile_invoicing.revision is
    'Before, the period''s; after, the invoice''s.';
create index reconcile_invoicing_at on tallygate.reconcile_invoicing (reconciled_at);
create index period_revision_closed on tallygate.period_revision (closed_at);
create index invoice_created on tallygate.invoice (created_at);

create trigger append_only before update or delete on tallygate.reconcile_invoicing
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.reconcile_invoicing
    for each statement execute function tallygate.refuse_change();
