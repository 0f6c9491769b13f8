-- The schema's part of looking at usage: what series of usage are expected to be, the hours that
-- were not, and what reconciliations came to.

create table tallygate.anomaly_series (
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    next_hour bigint not null,
    state jsonb not null,
    primary key (tenant_id, meter)
) with (fillfactor = 70);
comment on table tallygate.anomaly_series is
    'What was learned of each tenant''s usage of each meter, up to which hour since the epoch.';
create index anomaly_series_due on tallygate.anomaly_series (next_hour, tenant_id, meter);

create table tallygate.anomaly_season (
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    hour_of_week smallint not null check (hour_of_week between 0 and 167),
    state jsonb not null,
    primary key (tenant_id, meter, hour_of_week)
) with (fillfactor = 70);
comment on table tallygate.anomaly_season is
    'The same of each hour of the week, counted from Monday''s first in UTC.';

create table tallygate.usage_anomaly (
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    hour timestamptz not null,
    direction text not null check (direction in ('high', 'low')),
    basis text not null check (basis in ('seasonal', 'rolling', 'sporadic')),
    used numeric not null,
    events bigint not null,
    expected numeric not null,
    low numeric not null,
    high numeric not null,
    score numeric not null,
    late boolean not null,
    found_at timestamptz not null default now(),
    primary key (tenant_id, meter, hour)
);
comment on table tallygate.usage_anomaly is
    'Hours whose usage was not what it was expected to be, each told once.';
comment on column tallygate.usage_anomaly.late is
    'Found at the second look, for usage that came late.';

create table tallygate.reconcile_run (
    run_id text collate "C" primary key,
    after_tenant text collate "C" not null default '',
    pairs bigint not null default 0 check (pairs >= 0),
    exact bigint not null default 0 check (exact between 0 and pairs),
    drifting bigint not null default 0 check (drifting between 0 and pairs),
    started_at timestamptz not null default now(),
    finished_at timestamptz
);
comment on table tallygate.reconcile_run is
    'How far each reconciliation has come, and how many of its pairs of tenant, meter and period'
    ' were exact.';
create index reconcile_run_finished on tallygate.reconcile_run (finished_at);

create table tallygate.reconciliation (
    run_id text collate "C" not null,
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    period_start timestamptz not null,
    period_end timestamptz not null check (period_end > period_start),
    verdict text not null check (verdict in ('exact', 'in_flight', 'late', 'drift', 'unknown')),
    figures jsonb not null,
    repairs jsonb not null,
    reconciled_at timestamptz not null default now(),
    primary key (run_id, tenant_id, meter, period_start)
);
comment on table tallygate.reconciliation is
    'What each step from counter to invoice had of a meter in a period, as one run found it.';
create index reconciliation_latest
    on tallygate.reconciliation (tenant_id, meter, period_start, reconciled_at);

create table tallygate.reconcile_drift (
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    period_start timestamptz not null,
    step text collate "C" not null,
    units numeric not null check (units <> 0),
    run_id text collate "C" not null,
    found_at timestamptz not null default now(),
    primary key (tenant_id, meter, period_start, step, units)
);
comment on table tallygate.reconcile_drift is
    'Drifts that were told: the same units at the same step are told once, however often found.';

create trigger append_only before update or delete on tallygate.usage_anomaly
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.usage_anomaly
    for each statement execute function tallygate.refuse_change();
create trigger append_only before update or delete on tallygate.reconciliation
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.reconciliation
    for each statement execute function tallygate.refuse_change();
create trigger append_only before update or delete on tallygate.reconcile_drift
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.reconcile_drift
    for each statement execute function tallygate.refuse_change();
