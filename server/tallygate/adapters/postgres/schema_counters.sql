-- The schema's fourth part, after `schema_credits.sql`: which epoch the counters of each shard are
-- of, and what counters are due for what came late.

create table tallygate.counter_epoch (
    shard integer not null,
    epoch text not null,
    began_at timestamptz not null default now(),
    closed_at timestamptz,
    primary key (shard, epoch)
);
comment on table tallygate.counter_epoch is
    'Epochs that the counters of each shard were made anew in; one of each is not closed. An event'
    ' of any other that comes later is in no counter, and an old copy of the counters is no good.';
create unique index counter_epoch_current on tallygate.counter_epoch (shard)
    where closed_at is null;

create table tallygate.counter_correction (
    id bigint generated always as identity primary key,
    shard integer not null,
    epoch text not null,
    takes_back boolean not null,
    tenant_id text collate "C" not null,
    event_id text collate "C" not null,
    meter text collate "C" not null,
    amount bigint not null,
    event_time timestamptz not null,
    received_at timestamptz not null,
    source_id text collate "C" not null,
    source_lane integer not null,
    source_seq bigint not null,
    dimensions jsonb not null,
    context jsonb not null,
    refund_of text collate "C" not null,
    created_at timestamptz not null default now(),
    tried_at timestamptz,
    finished_at timestamptz,
    outcome text not null default '',
    constraint counter_correction_finished check ((finished_at is null) = (outcome = ''))
);
comment on table tallygate.counter_correction is
    'What counters of one epoch are due: to give back what was counted twice, or to take what came'
    ' too late for the sums that they were made of.';
comment on column tallygate.counter_correction.source_seq is
    'The number under which the event came; with another one it would be another correction.';
create unique index counter_correction_once
    on tallygate.counter_correction (source_id, source_lane, source_seq);
create index counter_correction_event on tallygate.counter_correction (tenant_id, event_id);
create index counter_correction_due on tallygate.counter_correction (id)
    where finished_at is null;

create table tallygate.rebuild_lease (
    one boolean primary key default true check (one),
    holder text not null,
    until timestamptz not null
) with (fillfactor = 50);
comment on table tallygate.rebuild_lease is
    'Which process makes counters anew, and until when nobody else does. One row.';

-- In plpgsql, so that what is read is what was committed while the locks were waited for.
create function tallygate.hold_counters(shards integer[])
    returns table (shard integer, epoch text)
    language plpgsql
    set search_path = pg_catalog
    as $$
declare
    each integer;
begin
    for each in select distinct asked from unnest(shards) as asked order by asked loop
        perform pg_advisory_xact_lock_shared(hashtext('tallygate.counters'), each);
    end loop;
    return query
        select known.shard, known.epoch from tallygate.counter_epoch as known
        where known.shard = any(shards) and known.closed_at is null;
end
$$;
comment on function tallygate.hold_counters is
    'Keep these shards from being closed until the transaction ends; return their epochs.';

create function tallygate.close_counters(shards integer[], epochs text[]) returns void
    language plpgsql
    set search_path = pg_catalog
    as $$
declare
    each integer;
begin
    for each in select distinct asked from unnest(shards) as asked order by asked loop
        perform pg_advisory_xact_lock(hashtext('tallygate.counters'), each);
    end loop;
    update tallygate.counter_epoch as known set closed_at = now()
    from unnest(shards, epochs) as asked (shard, epoch)
    where known.shard = asked.shard and known.epoch <> asked.epoch and known.closed_at is null;
    insert into tallygate.counter_epoch (shard, epoch)
    select asked.shard, asked.epoch from unnest(shards, epochs) as asked (shard, epoch)
    on conflict do nothing;
end
$$;
comment on function tallygate.close_counters is
    'Close all epochs of these shards but one of each, once nobody is storing anything of them.';
