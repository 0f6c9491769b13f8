-- Stripe: what it is to be told, and what became of that.

create table tallygate.stripe_intent (
    intent_id bigint generated always as identity primary key,
    destination text collate "C" not null,
    tenant_id text collate "C" not null,
    customer text collate "C" not null,
    meter text collate "C" not null,
    dimensions text collate "C" not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    seq integer not null check (seq > 0),
    kind text not null
        check (kind in ('delta', 'negative', 'cancel', 'total', 'item', 'quantity')),
    quantity numeric not null,
    value text not null,
    event_name text not null,
    sent_as_of timestamptz not null,
    identifier text collate "C" not null unique check (length(identifier) <= 100),
    idempotency_key text collate "C" not null unique check (length(idempotency_key) <= 255),
    replaces bigint unique references tallygate.stripe_intent (intent_id),
    cancels bigint references tallygate.stripe_intent (intent_id),
    details jsonb not null,
    created_at timestamptz not null default now(),
    constraint stripe_intent_window check (
        window_start < window_end and period_start <= window_start and window_end <= period_end
        and sent_as_of >= window_start and sent_as_of < window_end
    ),
    -- Of two planners that find the same gap, one writes.
    unique (destination, meter, tenant_id, window_start, window_end, dimensions, seq)
);
comment on table tallygate.stripe_intent is
    'What Stripe is to be told, written down before the first attempt and never edited.';
comment on column tallygate.stripe_intent.quantity is
    'In the meter''s smallest unit, of an item in the currency''s; `value` is what is sent.';
comment on column tallygate.stripe_intent.replaces is
    'The intent that this one says again, and which counts for nothing since.';
create unique index stripe_intent_cancels on tallygate.stripe_intent (cancels)
    where cancels is not null and replaces is null;

create table tallygate.stripe_send (
    intent_id bigint primary key references tallygate.stripe_intent (intent_id),
    destination text collate "C" not null,
    customer text collate "C" not null,
    meter text collate "C" not null,
    period_start timestamptz not null,
    state text not null check (
        state in (
            'pending', 'sending', 'ambiguous', 'delivered', 'settled', 'rejected', 'too_old',
            'shadow'
        )
    ),
    attempts integer not null default 0,
    doubtful boolean not null default false,
    alone boolean not null default false,
    first_attempt_at timestamptz,
    last_attempt_at timestamptz,
    due_at timestamptz not null,
    lease_token uuid,
    batch_key text collate "C" not null default '',
    code text not null default '',
    reason text not null default ''
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
comment on table tallygate.stripe_send is
    'How far each intent has come. Times are the sender''s, but for leases, which are below.';
comment on column tallygate.stripe_send.doubtful is
    'An attempt may have been taken, so that only the same identifier may go out again.';
comment on column tallygate.stripe_send.alone is
    'Goes by a call of its own, as a stream it was part of left open what became of it.';
create index stripe_send_due on tallygate.stripe_send
    (destination, customer, meter, due_at, intent_id)
    where state = 'pending';
create index stripe_send_doubt on tallygate.stripe_send
    (destination, customer, meter, due_at, intent_id)
    where state in ('sending', 'ambiguous');
-- The number is always above 0. Claims do not say so, and so cannot take this index: before there
-- are statistics Postgres would, and read the whole backlog for each lane.
create index stripe_send_unfinished on tallygate.stripe_send (destination, state)
    where state not in ('delivered', 'settled', 'shadow') and intent_id > 0;
create index stripe_send_period on tallygate.stripe_send
    (destination, customer, meter, period_start);
create index stripe_send_batch on tallygate.stripe_send (batch_key) where batch_key <> '';

create table tallygate.stripe_lane (
    destination text collate "C" not null,
    customer text collate "C" not null,
    meter text collate "C" not null,
    due_at timestamptz not null,
    quiet_until timestamptz not null default '-infinity',
    lease_token uuid,
    leased_until timestamptz,
    primary key (destination, customer, meter)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
comment on table tallygate.stripe_lane is
    'A customer''s meter: one relay sends for it at a time. Leases are in the database''s time.';
comment on column tallygate.stripe_lane.quiet_until is
    'Nothing is sent before, so that what Stripe has summed up by then can be read.';
create index stripe_lane_due on tallygate.stripe_lane (destination, due_at);
create index stripe_lane_leased on tallygate.stripe_lane (lease_token)
    where lease_token is not null;

create table tallygate.stripe_report (
    event_id text collate "C" primary key,
    destination text not null,
    received_at timestamptz not null default now(),
    errors integer not null,
    joined integer not null
);
comment on table tallygate.stripe_report is
    'Reports of errors that were worked off, so that one which comes again changes nothing.';

create trigger append_only before update or delete on tallygate.stripe_intent
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.stripe_intent
    for each statement execute function tallygate.refuse_change();
