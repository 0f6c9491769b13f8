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
    primary key (tenant_id, limit_id, window_start, ratio_ppm)
);
comment on table tallygate.threshold_crossing is
    'Each warning threshold that was reached, once per window, however often the stream says so.';

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
