-- The schema's fifth part, after `schema_counters.sql`: billing periods, what was frozen of each,
-- and what came late.

-- One row per period that is known: of each tenant without a hole, the newest one lasting still.
create table tallygate.billing_period (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    state text not null default 'open' check (state in ('open', 'grace', 'sealed', 'closed')),
    revision integer not null default 0,
    cause text not null default 'grace_over',
    due_at timestamptz,
    accept_missing boolean not null default false,
    held text not null default '',
    held_at timestamptz,
    created_at timestamptz not null,
    sealed_at timestamptz,
    primary key (tenant_id, start_at),
    constraint billing_period_time check (start_at < end_at),
    constraint billing_period_grace check (state = 'open' or due_at is not null)
) with (fillfactor = 80);
comment on table tallygate.billing_period is
    'How far each billing period has come. What was frozen of it stands in other tables.';
comment on column tallygate.billing_period.revision is
    'The newest that was sealed: an event that comes for a period of any is late.';
create unique index billing_period_end on tallygate.billing_period (tenant_id, end_at);
create index billing_period_ending on tallygate.billing_period (end_at) where state = 'open';
create index billing_period_unsealed on tallygate.billing_period (tenant_id, start_at)
    where revision = 0;
create index billing_period_due on tallygate.billing_period (due_at) where state = 'grace';
create index billing_period_sealed on tallygate.billing_period (sealed_at) where state = 'sealed';

-- Ingesters look here first: what is not older is late for nobody.
create table tallygate.period_frontier (
    one boolean primary key default true check (one),
    sealed_until timestamptz not null,
    accepted_lost bigint not null default 0
) with (fillfactor = 50);
comment on table tallygate.period_frontier is
    'Until when periods have been sealed, of whichever tenant is farthest. One row or none.';
comment on column tallygate.period_frontier.accepted_lost is
    'How many lost events there were when somebody last closed a period without them.';

create table tallygate.period_total (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    revision integer not null,
    meter text collate "C" not null,
    grouped text collate "C" not null default '',
    aggregation text not null,
    count bigint not null,
    sum numeric not null,
    max bigint not null,
    min bigint not null,
    state jsonb,
    quantity numeric,
    primary key (tenant_id, start_at, revision, meter, grouped)
);
comment on table tallygate.period_total is
    'What each meter added up to when a revision of a period was sealed. Append-only.';
comment on column tallygate.period_total.grouped is
    'The group''s values as a JSON array of pairs, empty for the whole meter.';
comment on column tallygate.period_total.state is
    'Of levels: the one that the period began with, as `carried`.';
comment on column tallygate.period_total.quantity is
    'What the meter is billed by, where a rule tells it; null where figures do.';

create table tallygate.period_adjustment (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    revision integer not null,
    closed_start timestamptz,
    meter text collate "C" not null,
    grouped text collate "C" not null default '',
    aggregation text not null,
    count bigint not null,
    sum numeric not null,
    max bigint not null,
    min bigint not null,
    quantity numeric not null,
    state jsonb
);
comment on table tallygate.period_adjustment is
    'What a period bills, beside its totals, of late events of periods closed before. Append-only.';
comment on column tallygate.period_adjustment.closed_start is
    'The closed period; null for usage of before the tenant''s first period.';
comment on column tallygate.period_adjustment.state is
    'Where a rule tells the quantity: the closed period''s revision that it was held against, and'
    ' the level that it began with.';
create unique index period_adjustment_once on tallygate.period_adjustment
    (tenant_id, start_at, revision, coalesce(closed_start, '-infinity'), meter, grouped);
create index period_adjustment_closed on tallygate.period_adjustment (tenant_id, closed_start);

create table tallygate.period_revision (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    revision integer not null,
    end_at timestamptz not null,
    cause text not null,
    sealed_at timestamptz not null,
    closed_at timestamptz not null,
    events bigint not null,
    digest bytea not null,
    primary key (tenant_id, start_at, revision)
);
comment on table tallygate.period_revision is
    'Each closing that is complete: how many events it covers, the hash over them. Append-only.';

create table tallygate.late_event (
    tenant_id text collate "C" not null,
    event_id text collate "C" not null,
    meter text collate "C" not null,
    amount bigint not null,
    event_time timestamptz not null,
    refund_of text collate "C" not null,
    closed_start timestamptz,
    closed_revision integer not null,
    placed text not null check (placed in ('next_period', 'correct', 'reopened')),
    allocated_start timestamptz not null,
    allocated_revision integer not null,
    noted_at timestamptz not null default now(),
    primary key (tenant_id, event_id)
);
comment on table tallygate.late_event is
    'Events that came for a period after it was sealed, and where each belongs instead. Noted in'
    ' the transaction that stores the event. Append-only.';
create index late_event_allocated
    on tallygate.late_event (tenant_id, allocated_start, allocated_revision);
create index late_event_closed on tallygate.late_event (tenant_id, closed_start);

create table tallygate.period_pending (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    revision integer not null,
    noted_at timestamptz not null default now(),
    primary key (tenant_id, start_at, revision)
);
comment on table tallygate.period_pending is
    'Corrections of closed periods that are to be made, and since when.';

create table tallygate.period_action (
    id bigint generated always as identity primary key,
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    revision integer not null,
    action text not null check (action in ('close', 'reopen')),
    actor text not null,
    reason text not null check (reason <> ''),
    done_at timestamptz not null
);
comment on table tallygate.period_action is
    'Who closed a period before its time, or opened it again, and why. Append-only.';
create index period_action_period on tallygate.period_action (tenant_id, start_at);

create table tallygate.period_lease (
    one boolean primary key default true check (one),
    holder text not null,
    until timestamptz not null
) with (fillfactor = 50);
comment on table tallygate.period_lease is
    'Which process closes periods, and until when no other does. One row.';

do $$
declare
    name text;
begin
    foreach name in array array[
        'period_total', 'period_adjustment', 'period_revision', 'late_event', 'period_action'
    ] loop
        execute format(
            'create trigger append_only before update or delete on tallygate.%I'
            ' for each row execute function tallygate.refuse_change()', name
        );
        execute format(
            'create trigger append_only_truncate before truncate on tallygate.%I'
            ' for each statement execute function tallygate.refuse_change()', name
        );
    end loop;
end
$$;

-- In plpgsql, so that what is read is what was committed while the locks were waited for.
create function tallygate.hold_ledger(shards integer[])
    returns table (sealed_until_us bigint, shard integer, epoch text)
    language plpgsql
    set search_path = pg_catalog
    as $$
declare
    each integer;
begin
    -- Before all others: whoever seals periods waits for us, or we see what he has sealed.
    perform pg_advisory_xact_lock_shared(hashtext('tallygate.periods'), 0);
    for each in select distinct asked from unnest(shards) as asked order by asked loop
        perform pg_advisory_xact_lock_shared(hashtext('tallygate.counters'), each);
    end loop;
    return query
        select (select tallygate.microseconds(sealed_until) from tallygate.period_frontier),
            known.shard, known.epoch
        from (select) as always
        left join tallygate.counter_epoch as known
            on known.shard = any(shards) and known.closed_at is null;
end
$$;
comment on function tallygate.hold_ledger is
    'Keep periods from being sealed, and these shards from being closed, until the transaction'
    ' ends; return until when periods are sealed, and the shards'' epochs.';

-- Those who store events queue behind this; its patience is how long they may be kept.
create function tallygate.fence_periods() returns void
    language plpgsql
    set search_path = pg_catalog
    set lock_timeout = '1s'
    as $$
begin
    perform pg_advisory_xact_lock(hashtext('tallygate.periods'), 0);
end
$$;
comment on function tallygate.fence_periods is
    'Keep events from being stored until the transaction ends, once those under way have been.';

create function tallygate.usage_between(tenant text, from_at timestamptz, to_at timestamptz)
    returns table (meter text, count bigint, sum numeric, max bigint, min bigint)
    language sql stable
    set search_path = pg_catalog
    set timezone = 'UTC'
    as $$
with recursive metered (name) as (
    (
        select used.meter from tallygate.usage_day as used
        where used.tenant_id = tenant order by used.meter limit 1
    )
    union all
    select (
        select used.meter from tallygate.usage_day as used
        where used.tenant_id = tenant and used.meter > metered.name order by used.meter limit 1
    )
    from metered where metered.name is not null
), hours as (
    select date_trunc('hour', from_at + interval '59 minutes 59.999999 seconds') as first,
        date_trunc('hour', to_at) as last
), days as (
    select first as first_hour, last as last_hour, first < last as any_hour,
        date_trunc('day', first + interval '23 hours 59 minutes 59.999999 seconds') as first,
        date_trunc('day', last) as last
    from hours
), edges as (
    select *,
        case when any_hour then first_hour else to_at end as minutes_to,
        case when any_hour then last_hour else to_at end as minutes_from,
        case when first < last then first else last_hour end as hours_to,
        case when first < last then last else last_hour end as hours_from
    from days
)
select metered.name, sum(part.count)::bigint, sum(part.sum),
    coalesce(max(part.max) filter (where part.count > 0), 0),
    coalesce(min(part.min) filter (where part.count > 0), 0)
from metered
cross join edges
cross join lateral (
    select used.count, used.sum, used.max, used.min from tallygate.usage_minute as used
    where used.tenant_id = tenant and used.meter = metered.name
        and used.bucket >= from_at and used.bucket < edges.minutes_to
    union all
    select used.count, used.sum, used.max, used.min from tallygate.usage_minute as used
    where used.tenant_id = tenant and used.meter = metered.name
        and used.bucket >= edges.minutes_from and used.bucket < to_at
    union all
    select used.count, used.sum, used.max, used.min from tallygate.usage_hour as used
    where used.tenant_id = tenant and used.meter = metered.name
        and used.bucket >= edges.first_hour and used.bucket < edges.hours_to
    union all
    select used.count, used.sum, used.max, used.min from tallygate.usage_hour as used
    where used.tenant_id = tenant and used.meter = metered.name
        and used.bucket >= edges.hours_from and used.bucket < edges.last_hour
    union all
    select used.count, used.sum, used.max, used.min from tallygate.usage_day as used
    where used.tenant_id = tenant and used.meter = metered.name
        and used.bucket >= edges.first and used.bucket < edges.last
) as part
where metered.name is not null
group by metered.name
$$;
comment on function tallygate.usage_between is
    'Usage of a tenant by meter over whole minutes: of whole days, and of hours and minutes at the'
    ' edges.';
