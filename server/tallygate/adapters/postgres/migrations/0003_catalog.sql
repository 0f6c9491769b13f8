-- The catalog: its versions, effective-dated, and the tenants.

create table tallygate.catalog_version (
    version bigint primary key,
    document text not null,
    snapshot jsonb not null,
    effective_at timestamptz not null,
    created_at timestamptz not null default now()
);
comment on table tallygate.catalog_version is
    'Every version that was applied; the newest whose effective_at has come is in effect.';

create table tallygate.tenant (
    tenant_id text collate "C" primary key,
    plan text collate "C" not null,
    definition jsonb not null,
    version bigint not null,
    updated_at timestamptz not null default now()
);
comment on table tallygate.tenant is 'Tenants as last written, and the version that wrote them.';
create index tenant_version on tallygate.tenant (version, tenant_id);
create index tenant_plan on tallygate.tenant (plan, tenant_id);

create table tallygate.tenant_history (
    tenant_id text collate "C" not null,
    version bigint not null,
    plan text collate "C" not null,
    definition jsonb not null,
    effective_at timestamptz not null,
    primary key (tenant_id, version)
);
comment on table tallygate.tenant_history is 'What each version made of each tenant it wrote.';
