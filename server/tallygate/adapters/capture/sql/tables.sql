-- Capture in an app's own database, part 1 of 3: what is held. Run again, it changes nothing.
-- Every name begins with `capture`, so that the schema may be that of a ledger too.
create schema if not exists tallygate;

create table if not exists tallygate.capture_version (version integer primary key);

comment on table tallygate.capture_version is 'Which version of the capture package is installed.';

create table if not exists tallygate.capture_rule (
    capture_id integer generated always as identity primary key,
    relation regclass not null,
    meter text not null,
    kind text not null check (kind in ('use', 'level')),
    events text[] not null,
    tenant text not null,
    amount text not null,
    dimensions jsonb not null,
    per text not null check (per in ('row', 'statement')),
    every_s integer not null check (every_s between 0 and 86400),
    strictly boolean not null,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    ended_at timestamptz
);

comment on table tallygate.capture_rule is
'What is captured of which table. Expressions are as Postgres writes them, with schemas.';

create unique index if not exists capture_rule_live
on tallygate.capture_rule (relation, meter) where ended_at is null;

create table if not exists tallygate.captured (
    captured_id bigint generated always as identity primary key,
    event_id text not null default 'pg-' || gen_random_uuid(),
    capture_id integer not null,
    tenant_id text not null,
    meter text not null,
    amount bigint not null check (amount between 0 and 9007199254740991),
    captured_at timestamptz not null,
    dimensions jsonb not null,
    attempts integer not null default 0,
    due_at timestamptz not null default '-infinity',
    lease uuid
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

comment on table tallygate.captured is
'The outbox: usage that was committed with the app''s own rows, and is not handed on yet.';

create table if not exists tallygate.capture_rejected (
    captured_id bigint primary key,
    event_id text not null,
    capture_id integer not null,
    tenant_id text not null,
    meter text not null,
    amount bigint not null,
    captured_at timestamptz not null,
    dimensions jsonb not null,
    reason text not null,
    detail text not null,
    rejected_at timestamptz not null default clock_timestamp()
);

comment on table tallygate.capture_rejected is
'Usage that was refused for good, with the reason: until somebody has it sent again.';

create table if not exists tallygate.capture_unmeasured (
    unmeasured_id bigint generated always as identity primary key,
    capture_id integer not null,
    captured_at timestamptz not null default clock_timestamp(),
    row_count bigint not null,
    reason text not null
);

comment on table tallygate.capture_unmeasured is
'Rows that the app wrote and that could not be measured, by statement and reason.';

create table if not exists tallygate.capture_delta (
    delta_id bigint generated always as identity primary key,
    capture_id integer not null,
    tenant_id text not null,
    dimensions jsonb not null,
    units numeric not null,
    captured_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

comment on table tallygate.capture_delta is
'By how much statements have changed levels: rows of their own, so that no writer waits.';

create table if not exists tallygate.capture_level (
    capture_id integer not null,
    tenant_id text not null,
    dimensions jsonb not null,
    units numeric not null,
    level_at timestamptz not null,
    primary key (capture_id, tenant_id, dimensions)
);

comment on table tallygate.capture_level is
'The levels that were told last: all deltas that have been folded, added up.';

create or replace view tallygate.captures as
select
    rule.capture_id,
    case when relation.oid is null then null else rule.relation end as relation,
    rule.meter,
    rule.kind,
    array_to_string(rule.events, ',') as events,
    rule.tenant,
    rule.amount,
    rule.dimensions,
    rule.per,
    rule.every_s,
    rule.strictly,
    rule.created_at,
    rule.ended_at,
    (select count(*) from tallygate.captured as held where held.capture_id = rule.capture_id)
        as waiting,
    (select count(*) from tallygate.capture_delta as held where held.capture_id = rule.capture_id)
        as unfolded,
    (select count(*) from tallygate.capture_rejected as held
     where held.capture_id = rule.capture_id) as rejected,
    (select coalesce(sum(held.row_count), 0) from tallygate.capture_unmeasured as held
     where held.capture_id = rule.capture_id) as unmeasured
from tallygate.capture_rule as rule
left join pg_catalog.pg_class as relation on relation.oid = rule.relation;

comment on view tallygate.captures is 'What is captured, and how much of it waits or went wrong.';
