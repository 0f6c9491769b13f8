-- The schema: with `schema_rollups.sql`, `schema_credits.sql`, `schema_counters.sql` and
-- `schema_periods.sql`, which follow it, the truth that the migrations lead to, section by section.
-- A test holds the two together. Never run it against a database with data; `tallygate migrate`
-- does that.

-- The ledger: events once for ever, how far each source has come, dead letters.

create schema if not exists tallygate;
comment on schema tallygate is 'Usage ledger, outbox and catalog of Tallygate.';

create function tallygate.instant(microseconds bigint) returns timestamptz
    language sql stable strict parallel safe
    as $$ select 'epoch'::timestamptz + microseconds * interval '1 microsecond' $$;
comment on function tallygate.instant is
    'Microseconds since the Unix epoch as a timestamp, exactly. Stable, so that it is inlined.';

create function tallygate.microseconds(instant timestamptz) returns bigint
    language sql stable strict parallel safe
    as $$ select (extract(epoch from instant) * 1000000)::bigint $$;
comment on function tallygate.microseconds is
    'A timestamp as microseconds since the Unix epoch, exactly.';

create function tallygate.refuse_change() returns trigger
    language plpgsql
    set search_path = pg_catalog
    as $$
begin
    raise exception 'tallygate.% is append-only: % refused', tg_table_name, lower(tg_op)
        using errcode = 'insufficient_privilege',
              hint = 'Append a correction instead.';
end
$$;

-- Unique over the whole retention, which an index on the partitioned events could not be: it
-- would have to hold the partition key. Hash partitions keep each index small enough to rebuild.
create table tallygate.event_key (
    tenant_id text collate "C" not null,
    event_id text collate "C" not null,
    event_time timestamptz not null,
    primary key (tenant_id, event_id)
) partition by hash (tenant_id, event_id);
comment on table tallygate.event_key is
    'What makes an event one of a kind; its time says which partition of usage_event holds it.';

do $$
begin
    for remainder in 0..15 loop
        execute format(
            'create table tallygate.event_key_%s partition of tallygate.event_key'
            ' for values with (modulus 16, remainder %s)'
            ' with (autovacuum_vacuum_insert_scale_factor = 0.02)',
            to_char(remainder, 'FM00'), remainder
        );
    end loop;
end
$$;

create table tallygate.usage_event (
    tenant_id text collate "C" not null,
    event_id text collate "C" not null,
    meter text collate "C" not null,
    amount bigint not null check (amount <> 0),
    event_time timestamptz not null,
    received_at timestamptz not null,
    operation_id text not null,
    source_id text not null,
    source_lane integer not null,
    source_seq bigint not null,
    counter_epoch text not null,
    schema_version integer not null,
    subject_id text not null,
    resource_id text not null,
    session_id text not null,
    region text not null,
    sku text not null,
    correlation_id text not null,
    sdk text not null,
    dimensions jsonb not null,
    metadata jsonb,
    refund_of text collate "C" not null default '',
    reservation_id text not null default '',
    constraint usage_event_refund check ((amount < 0) = (refund_of <> ''))
) partition by range (event_time);
comment on table tallygate.usage_event is
    'Every accepted event, never edited. Monthly partitions by event_time, in UTC.';
create index usage_event_tenant on tallygate.usage_event (tenant_id, meter, event_time);
create index usage_event_refund_of on tallygate.usage_event (tenant_id, refund_of)
    where refund_of <> '';
comment on column tallygate.usage_event.refund_of is
    'The event of the same tenant that this one takes back, empty for none. No foreign key: of two'
    ' ingesters, the one that has the refund may be first.';

-- Appended to for ever: vacuumed, so frozen and marked as visible, after each fiftieth of its size.
create table tallygate.usage_event_default partition of tallygate.usage_event default
    with (autovacuum_vacuum_insert_scale_factor = 0.02);
comment on table tallygate.usage_event_default is
    'Events of months that have no partition, so that none is refused for its time.';

create trigger append_only before update or delete on tallygate.event_key
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.event_key
    for each statement execute function tallygate.refuse_change();
create trigger append_only before update or delete on tallygate.usage_event
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.usage_event
    for each statement execute function tallygate.refuse_change();

-- Truncate triggers are not passed on to partitions, so each gets its own.
do $$
declare
    leaf regclass;
begin
    for leaf in
        select inhrelid::regclass from pg_inherits
        where inhparent in ('tallygate.event_key'::regclass, 'tallygate.usage_event'::regclass)
    loop
        execute format(
            'create trigger append_only_truncate before truncate on %s'
            ' for each statement execute function tallygate.refuse_change()', leaf
        );
    end loop;
end
$$;

-- Runs as its owner, so that the ingester needs no right to create tables. A month of which the
-- default partition holds events already is left to it: moving them would edit the ledger.
create function tallygate.ensure_partitions(first_day date, last_day date) returns integer
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
    set timezone = 'UTC'
    as $$
declare
    month timestamptz := date_trunc('month', first_day::timestamptz);
    following timestamptz;
    leaf text;
    made integer := 0;
begin
    if last_day - first_day > 3660 then
        raise exception 'at most ten years of partitions at a time'
            using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtext('tallygate.ensure_partitions'));
    while month <= last_day::timestamptz loop
        following := month + interval '1 month';
        leaf := 'usage_event_' || to_char(month, 'YYYYMM');
        if to_regclass('tallygate.' || leaf) is null and not exists (
            select from tallygate.usage_event_default
            where event_time >= month and event_time < following
        ) then
            execute format(
                'create table tallygate.%I (like tallygate.usage_event including all)'
                ' with (autovacuum_vacuum_insert_scale_factor = 0.02)', leaf
            );
            execute format(
                'create trigger append_only_truncate before truncate on tallygate.%I'
                ' for each statement execute function tallygate.refuse_change()', leaf
            );
            -- Attaching locks the parent less than creating as a partition does.
            execute format(
                'alter table tallygate.usage_event attach partition tallygate.%I'
                ' for values from (%L) to (%L)', leaf, month, following
            );
            made := made + 1;
        end if;
        month := following;
    end loop;
    return made;
end
$$;
comment on function tallygate.ensure_partitions is
    'Create the monthly partitions of usage_event that are missing; return how many were made.';

create table tallygate.source_progress (
    source_id text collate "C" not null,
    source_lane integer not null,
    seen int8multirange not null,
    primary key (source_id, source_lane)
) with (fillfactor = 50);
comment on table tallygate.source_progress is
    'Which sequence numbers of a source''s lane are in the ledger; its holes are the gaps.';

create table tallygate.dead_letter (
    id bigint generated always as identity primary key,
    tenant_id text not null,
    event_id text not null,
    reason text not null,
    detail text not null,
    payload bytea not null,
    payload_sha256 bytea not null generated always as (sha256(payload)) stored,
    received_at timestamptz not null,
    source_id text not null,
    source_lane integer not null,
    source_seq bigint not null,
    created_at timestamptz not null default now()
);
comment on table tallygate.dead_letter is
    'Events refused but kept, and events that can never be stored, each once, with the reason.';
create unique index dead_letter_once
    on tallygate.dead_letter (source_id, source_lane, source_seq, payload_sha256);
create index dead_letter_tenant on tallygate.dead_letter (tenant_id, created_at);

-- The outbox: messages, their deliveries, where they go, and the crossings already told.

create table tallygate.destination (
    name text primary key,
    kind text not null,
    url text not null,
    types text[] not null,
    active boolean not null default true,
    secret_env text not null default '',
    secret_file text not null default ''
);
comment on table tallygate.destination is
    'Where messages go. Secrets are named here, never held.';

create table tallygate.threshold_crossing (
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    window_start timestamptz not null,
    ratio_ppm integer not null,
    meter text not null,
    threshold bigint not null,
    used bigint not null,
    limit_units bigint not null,
    window_end timestamptz not null,
    crossed_at timestamptz not null,
    scope text collate "C" not null default '',
    primary key (tenant_id, limit_id, scope, window_start, ratio_ppm)
);
comment on table tallygate.threshold_crossing is
    'Each warning threshold that was reached, once per window, however often the stream says so.';
comment on column tallygate.threshold_crossing.scope is
    'KEY=VALUE for a limit per dimension, empty for the tenant''s own.';

create table tallygate.outbox (
    id uuid primary key,
    xid xid8 not null default pg_current_xact_id(),
    seq bigint not null generated always as identity,
    aggregatetype text not null,
    aggregateid text not null,
    type text not null,
    payload bytea not null,
    created_at timestamptz not null default now()
);
comment on table tallygate.outbox is
    'Messages, built once. Column names are those of Debezium''s outbox router.';
comment on column tallygate.outbox.xid is
    'A reader that tails must order by (xid, seq) and stay below the oldest running transaction.';
comment on column tallygate.outbox.id is 'Travels as the message id to every destination.';
create index outbox_tail on tallygate.outbox (xid, seq);

create table tallygate.delivery (
    message_id uuid not null references tallygate.outbox (id),
    destination text not null,
    state text not null default 'pending' check (state in ('pending', 'delivered', 'parked')),
    attempt integer not null default 0,
    due_at timestamptz not null default now(),
    lease_token uuid,
    leased_until timestamptz,
    reason text not null default '',
    finished_at timestamptz,
    primary key (destination, message_id)
) with (fillfactor = 70);
comment on table tallygate.delivery is 'One message on its way to one destination.';
comment on column tallygate.delivery.due_at is
    'When it may be claimed; a claim moves it to the end of its lease.';
create index delivery_due on tallygate.delivery (destination, due_at) where state = 'pending';
create index delivery_unfinished on tallygate.delivery (destination, state)
    where state <> 'delivered';
create index delivery_message on tallygate.delivery (message_id);

create table tallygate.outbox_pruned (
    one boolean primary key default true check (one),
    pruned_before timestamptz not null
);
comment on table tallygate.outbox_pruned is
    'Until when messages may be missing because they were delivered and pruned; one row or none.';

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

-- What has been applied; the migration runner makes this table itself, before all others.
create table tallygate.schema_migration (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
