-- The audit log, archives of months and legal holds, messages sent again, rollups made anew.

create table tallygate.audit_log (
    seq bigint primary key,
    at timestamptz not null,
    actor text not null,
    role text not null,
    action text not null,
    tenant_id text collate "C" not null,
    call_id text not null,
    request text not null,
    request_sha256 text not null,
    outcome text not null,
    prev_hash bytea not null check (octet_length(prev_hash) = 32),
    hash bytea not null check (octet_length(hash) = 32)
);
comment on table tallygate.audit_log is
    'Who asked for what, and what came of it: one chain, each row with the hash of the one before.';
create index audit_log_tenant on tallygate.audit_log (tenant_id, seq) where tenant_id <> '';

create table tallygate.audit_head (
    one boolean primary key default true check (one),
    seq bigint not null,
    hash bytea not null
) with (fillfactor = 50);
comment on table tallygate.audit_head is
    'The end of the chain: whoever appends holds this row, and rows cut off the end are missed.';
insert into tallygate.audit_head (seq, hash) values (0, decode(repeat('00', 32), 'hex'));

create function tallygate.audit_field(value text) returns text
    language sql immutable strict parallel safe
    set search_path = pg_catalog
    as $$ select octet_length(convert_to(value, 'UTF8'))::text || ':' || value || ',' $$;
comment on function tallygate.audit_field is
    'A field as the chain hashes it: with its length in bytes before it, so that none runs on.';

-- Runs as its owner: no role may write rows of its own making. Its time is taken while it holds
-- the end of the chain, so that times follow the numbers.
create function tallygate.append_audit(
    actors text[], roles text[], actions text[], tenants text[], calls text[],
    requests text[], digests text[], outcomes text[]
) returns bigint
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
declare
    head record;
    each record;
    moment timestamptz;
    number bigint;
    before bytea;
    after bytea;
begin
    select seq, hash into strict head from tallygate.audit_head for update;
    number := head.seq;
    before := head.hash;
    for each in
        select * from unnest(actors, roles, actions, tenants, calls, requests, digests, outcomes)
            with ordinality as entry (
                actor, role, action, tenant_id, call_id, request, digest, outcome, place
            )
        order by place
    loop
        number := number + 1;
        moment := clock_timestamp();
        after := sha256(convert_to(
            tallygate.audit_field(number::text)
            || tallygate.audit_field(tallygate.microseconds(moment)::text)
            || tallygate.audit_field(each.actor) || tallygate.audit_field(each.role)
            || tallygate.audit_field(each.action) || tallygate.audit_field(each.tenant_id)
            || tallygate.audit_field(each.call_id) || tallygate.audit_field(each.request)
            || tallygate.audit_field(each.digest) || tallygate.audit_field(each.outcome)
            || tallygate.audit_field(encode(before, 'hex')), 'UTF8'
        ));
        insert into tallygate.audit_log (
            seq, at, actor, role, action, tenant_id, call_id, request, request_sha256, outcome,
            prev_hash, hash
        ) values (
            number, moment, each.actor, each.role, each.action, each.tenant_id, each.call_id,
            each.request, each.digest, each.outcome, before, after
        );
        before := after;
    end loop;
    update tallygate.audit_head set seq = number, hash = before;
    return number;
end
$$;
comment on function tallygate.append_audit is
    'Append entries to the chain, in their order; return the number of the last.';

create table tallygate.legal_hold (
    hold_id text collate "C" primary key,
    tenant_id text collate "C" not null,
    reason text not null check (reason <> ''),
    actor text not null,
    placed_at timestamptz not null default now()
);
comment on table tallygate.legal_hold is
    'Tenants whose events and messages nobody may drop, each with the reason.';
create index legal_hold_tenant on tallygate.legal_hold (tenant_id);

create table tallygate.legal_hold_release (
    hold_id text collate "C" primary key references tallygate.legal_hold (hold_id),
    reason text not null check (reason <> ''),
    actor text not null,
    released_at timestamptz not null default now()
);
comment on table tallygate.legal_hold_release is 'Holds that are over, each with the reason.';

create view tallygate.legal_hold_active as
    select hold.hold_id, hold.tenant_id, hold.reason, hold.actor, hold.placed_at
    from tallygate.legal_hold as hold
    where not exists (
        select from tallygate.legal_hold_release as ended where ended.hold_id = hold.hold_id
    );
comment on view tallygate.legal_hold_active is 'Holds that are in force.';

create table tallygate.month_archive (
    archive_id text collate "C" primary key,
    month timestamptz not null,
    leaf text not null,
    events bigint not null,
    file text not null,
    format text not null,
    file_sha256 text not null,
    actor text not null,
    archived_at timestamptz not null default now()
);
comment on table tallygate.month_archive is
    'Files that a whole month of events was written to, each read from one snapshot.';
create index month_archive_month on tallygate.month_archive (month);

create table tallygate.month_archive_usage (
    archive_id text collate "C" not null references tallygate.month_archive (archive_id),
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    events bigint not null,
    count bigint not null,
    sum numeric not null,
    max bigint not null,
    min bigint not null,
    primary key (archive_id, tenant_id, meter)
);
comment on table tallygate.month_archive_usage is
    'What an archived month came to, of the same snapshot: rollups are held against it for ever.';

create table tallygate.month_dropped (
    month timestamptz primary key,
    archive_id text collate "C" not null references tallygate.month_archive (archive_id),
    actor text not null,
    dropped_at timestamptz not null default now()
);
comment on table tallygate.month_dropped is
    'Months whose events are in their archive alone. Their keys and rollups stay.';

create table tallygate.message_replay (
    replay_id text collate "C" not null,
    destination text collate "C" not null,
    message_id uuid not null,
    state_before text not null,
    replayed_at timestamptz not null default now(),
    primary key (replay_id, destination, message_id)
);
comment on table tallygate.message_replay is
    'Messages that were sent again, once for each replay; empty state: they had not been for it.';

do $$
declare
    name text;
begin
    foreach name in array array[
        'audit_log', 'legal_hold', 'legal_hold_release', 'month_archive', 'month_archive_usage',
        'month_dropped', 'message_replay'
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

-- Periods are no part of this: where they are kept, none that a month touches may be open still.
create function tallygate.unclosed_periods(from_time timestamptz, to_time timestamptz)
    returns bigint
    language plpgsql stable
    set search_path = pg_catalog
    as $$
declare
    found bigint := 0;
begin
    if to_regclass('tallygate.billing_period') is not null then
        execute 'select count(*) from tallygate.billing_period'
            ' where start_at < $2 and end_at > $1 and state <> ''closed'''
            into found using from_time, to_time;
    end if;
    return found;
end
$$;
comment on function tallygate.unclosed_periods is
    'Count the billing periods of any tenant that overlap a time and are not closed.';

-- Runs as its owner, so that no role needs the right to drop tables. Events are never edited, so
-- that as many as the archive has are the ones it has. Whoever ingests waits while they are
-- counted, with everything else done before.
create function tallygate.drop_month(
    asked_month timestamptz, asked_archive text, keep_months integer, asked_actor text
) returns bigint
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
    set timezone = 'UTC'
    as $$
declare
    archive tallygate.month_archive;
    leaf text := 'usage_event_' || to_char(asked_month, 'YYYYMM');
    held text;
    found bigint;
begin
    select * into archive from tallygate.month_archive
    where archive_id = asked_archive and month = asked_month;
    if archive.archive_id is null or date_trunc('month', asked_month) <> asked_month then
        raise exception 'the month has no such archive' using errcode = 'invalid_parameter_value';
    end if;
    -- Longer than any limit's window, whose counters could be made anew from events.
    if keep_months < 14
        or asked_month + make_interval(months => keep_months + 1) > now() then
        raise exception 'the month is younger than what is kept'
            using errcode = 'invalid_parameter_value';
    end if;
    if tallygate.unclosed_periods(asked_month, asked_month + interval '1 month') > 0 then
        raise exception 'a billing period of the month is not closed'
            using errcode = 'invalid_parameter_value';
    end if;
    -- Before the events, as whoever places a hold must not wait for who counts.
    lock table tallygate.legal_hold in share mode;
    execute format(
        'select hold.tenant_id from tallygate.legal_hold_active as hold'
        ' where exists (select from tallygate.%I as event where event.tenant_id = hold.tenant_id)'
        ' limit 1', leaf
    ) into held;
    if held is not null then
        raise exception 'a legal hold keeps the month' using errcode = 'invalid_parameter_value';
    end if;
    lock table tallygate.usage_event in access exclusive mode;
    execute format('select count(*) from tallygate.%I', leaf) into found;
    if found <> archive.events then
        raise exception 'the month has % events, its archive %', found, archive.events
            using errcode = 'invalid_parameter_value';
    end if;
    insert into tallygate.month_dropped (month, archive_id, actor)
    values (asked_month, asked_archive, asked_actor);
    execute format('drop table tallygate.%I', leaf);
    return found;
end
$$;
comment on function tallygate.drop_month is
    'Drop a month of events that its archive has, that is old enough and that nobody holds.';

-- Rows are locked in the order in which ingesters write them, and read again only then: what an
-- ingester has committed is in the events by now, and what it has not comes on top afterwards.
create function tallygate.recompute_usage(
    asked_tenant text, asked_meter text, asked_day timestamptz
) returns bigint
    language plpgsql
    set search_path = pg_catalog
    set timezone = 'UTC'
    as $$
declare
    day timestamptz := date_trunc('day', asked_day);
    following timestamptz := day + interval '1 day';
    unit text;
    changed bigint;
    total bigint := 0;
begin
    if exists (
        select from tallygate.month_dropped where month = date_trunc('month', asked_day)
    ) then
        raise exception 'the events of that month are in its archive alone'
            using errcode = 'invalid_parameter_value';
    end if;
    foreach unit in array array['minute', 'hour', 'day'] loop
        execute format(
            'insert into tallygate.usage_%1$s as rollup'
            ' (tenant_id, meter, bucket, count, sum, max, min)'
            ' select distinct $1, $2, date_trunc(%1$L, event_time), 0, 0, 0, 0'
            ' from tallygate.usage_event'
            ' where tenant_id = $1 and meter = $2 and event_time >= $3 and event_time < $4'
            ' order by 3'
            ' on conflict (tenant_id, meter, bucket) do update set count = rollup.count', unit
        ) using asked_tenant, asked_meter, day, following;
        execute format(
            'select count(*) from (select from tallygate.usage_%1$s'
            ' where tenant_id = $1 and meter = $2 and bucket >= $3 and bucket < $4'
            ' order by bucket for update) as locked', unit
        ) using asked_tenant, asked_meter, day, following;
    end loop;
    foreach unit in array array['minute', 'hour', 'day'] loop
        execute format(
            'with event as ('
            ' select date_trunc(%1$L, event_time) as bucket,'
            ' count(*) filter (where refund_of = '''') as count, sum(amount) as sum,'
            ' coalesce(max(amount) filter (where refund_of = ''''), 0) as max,'
            ' coalesce(min(amount) filter (where refund_of = ''''), 0) as min'
            ' from tallygate.usage_event'
            ' where tenant_id = $1 and meter = $2 and event_time >= $3 and event_time < $4'
            ' group by 1),'
            ' wrong as ('
            ' select rollup.bucket, event.count, event.sum, event.max, event.min'
            ' from tallygate.usage_%1$s as rollup left join event using (bucket)'
            ' where rollup.tenant_id = $1 and rollup.meter = $2'
            ' and rollup.bucket >= $3 and rollup.bucket < $4'
            ' and (rollup.count, rollup.sum, rollup.max, rollup.min)'
            ' is distinct from (event.count, event.sum, event.max, event.min)),'
            ' gone as ('
            ' delete from tallygate.usage_%1$s as rollup using wrong'
            ' where rollup.tenant_id = $1 and rollup.meter = $2'
            ' and rollup.bucket = wrong.bucket and wrong.count is null returning 1),'
            ' mended as ('
            ' update tallygate.usage_%1$s as rollup'
            ' set count = wrong.count, sum = wrong.sum, max = wrong.max, min = wrong.min'
            ' from wrong where rollup.tenant_id = $1 and rollup.meter = $2'
            ' and rollup.bucket = wrong.bucket and wrong.count is not null returning 1)'
            ' select (select count(*) from gone) + (select count(*) from mended)', unit
        ) into changed using asked_tenant, asked_meter, day, following;
        total := total + changed;
    end loop;
    return total;
end
$$;
comment on function tallygate.recompute_usage is
    'Make the rollups of a tenant''s meter on one day anew from its events, beside ingesters;'
    ' return how many buckets were otherwise.';
