-- Rollups of what meters group by, count as different, sketch, take last or hold for a time.

create table tallygate.rollup_shape (
    shape_id integer primary key generated always as identity,
    meter text collate "C" not null,
    definition jsonb,
    active boolean not null default true,
    complete tstzmultirange not null default '{}',
    created_at timestamptz not null default now()
);
comment on table tallygate.rollup_shape is
    'How a meter is rolled up, beside by minute, hour and day. A change is a row of its own.';
comment on column tallygate.rollup_shape.definition is
    'Aggregation, unique_by and group_by; null for a meter without rollups of its own any more.';
comment on column tallygate.rollup_shape.complete is
    'Of which times of events all are in the rollups of this shape.';
create unique index rollup_shape_active on tallygate.rollup_shape (meter) where active;

create table tallygate.rollup_group (
    group_id bigint primary key generated always as identity,
    shape_id integer not null,
    tenant_id text collate "C" not null,
    group_values jsonb not null,
    digest text collate "C" not null generated always as (md5(group_values::text)) stored,
    unique (shape_id, tenant_id, digest)
);
comment on table tallygate.rollup_group is
    'A tenant''s groups of a shape: the values of its group_by, in their order.';
comment on column tallygate.rollup_group.digest is
    'Values are longer than an index holds.';

-- As usage_minute: updated in place, so that no index holds what changes, and pages have room.
create table tallygate.group_usage (
    group_id bigint not null,
    level smallint not null check (level between 0 and 2),
    bucket timestamptz not null,
    count bigint not null,
    sum numeric not null,
    max bigint not null,
    min bigint not null,
    first_at timestamptz,
    area numeric,
    last_at timestamptz,
    last_id text collate "C",
    last bigint,
    primary key (group_id, level, bucket)
) with (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
comment on table tallygate.group_usage is
    'A group''s usage by minute (level 0), hour (1) and day (2) of event_time, in UTC.';
comment on column tallygate.group_usage.last is
    'Of the latest event: its amount, or the level that it set. last_at and last_id say which.';
comment on column tallygate.group_usage.area is
    'Units times microseconds from first_at, when the bucket''s first level was set, to last_at.';

create table tallygate.group_part (
    group_id bigint not null,
    level smallint not null check (level between 0 and 2),
    bucket timestamptz not null,
    key text collate "C" not null,
    units numeric not null,
    primary key (group_id, level, bucket, key)
) with (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
comment on table tallygate.group_part is
    'Of unique: units by value, which counts while above 0. Of percentile: events by slot.';

create table tallygate.group_level (
    group_id bigint not null,
    at timestamptz not null,
    event_id text collate "C" not null,
    amount bigint not null,
    arrived boolean not null,
    primary key (group_id, at, event_id)
) with (fillfactor = 90);
comment on table tallygate.group_level is
    'Of time_weighted: levels that events set, less their refunds; arrived with the event itself.';

create function tallygate.bucket_of(at_us bigint, level integer) returns bigint
    language sql immutable strict parallel safe
    as $$
        -- A time before 1970 belongs to the bucket that it lies in.
        select at_us - ((at_us % found.us) + found.us) % found.us
        from (select (array[60000000, 3600000000, 86400000000])[level + 1] as us) as found
    $$;
comment on function tallygate.bucket_of is
    'The start of the minute (level 0), hour (1) or day (2) of an instant, in microseconds.';

create function tallygate.other_group(group_values jsonb) returns jsonb
    language sql immutable strict parallel safe
    as $$
        select coalesce(jsonb_agg('__other__'::text), '[]') from jsonb_array_elements(group_values)
    $$;
comment on function tallygate.other_group is
    'The group of all that have none of their own, beside groups of so many values.';

create function tallygate.asked_groups(groups jsonb) returns table (
    place integer, shape_id integer, tenant_id text, own jsonb, other jsonb,
    own_digest text, other_digest text
)
    language sql immutable
    as $$
        select asked.place::integer - 1, (asked.part ->> 0)::integer,
            (asked.part ->> 1) collate "C", asked.part -> 2, other.own,
            md5((asked.part -> 2)::text), md5(other.own::text)
        from jsonb_array_elements(groups) with ordinality as asked (part, place)
        cross join lateral (select tallygate.other_group(asked.part -> 2) as own) as other
    $$;
comment on function tallygate.asked_groups is
    'Rows of [shape, tenant, values] by their place, each with the group of all others.';

create function tallygate.resolve_groups(groups jsonb)
    returns table (place integer, group_id bigint)
    language plpgsql
    set search_path = pg_catalog
    as $$
#variable_conflict use_column
begin
    -- Where a tenant has the group of all others, no group is made any more.
    if exists (
        with asked as materialized (select * from tallygate.asked_groups(groups))
        select from asked
        where not exists (
            select from tallygate.rollup_group as known
            where known.shape_id = asked.shape_id and known.tenant_id = asked.tenant_id
                and known.digest = asked.own_digest
        ) and not exists (
            select from tallygate.rollup_group as known
            where known.shape_id = asked.shape_id and known.tenant_id = asked.tenant_id
                and known.digest = asked.other_digest
        )
    ) then
        -- One after the other, in one order: what others made shows to the statement that follows.
        perform pg_advisory_xact_lock(1413825364, shape.shape_id)
        from (
            select distinct shape_id from tallygate.asked_groups(groups) order by shape_id
        ) as shape;
        insert into tallygate.rollup_group (shape_id, tenant_id, group_values)
        with asked as materialized (
            select distinct shape_id, tenant_id, own, other, own_digest, other_digest
            from tallygate.asked_groups(groups)
        ),
        made as materialized (
            select shape_id, tenant_id, count(*) as count
            from tallygate.rollup_group
            where (shape_id, tenant_id) in (select shape_id, tenant_id from asked)
            group by shape_id, tenant_id
        )
        select shape_id, tenant_id, case
            when coalesce(made.count, 0) + row_number() over (
                partition by shape_id, tenant_id order by asked.own
            ) <= 10000 then asked.own
            else asked.other
        end
        from asked left join made using (shape_id, tenant_id)
        where not exists (
            select from tallygate.rollup_group as known
            where known.shape_id = asked.shape_id and known.tenant_id = asked.tenant_id
                and known.digest = asked.own_digest
        ) and not exists (
            select from tallygate.rollup_group as known
            where known.shape_id = asked.shape_id and known.tenant_id = asked.tenant_id
                and known.digest = asked.other_digest
        )
        on conflict do nothing;
    end if;
    return query
        with asked as materialized (select * from tallygate.asked_groups(groups))
        select asked.place, coalesce(own.group_id, other.group_id)
        from asked
        left join tallygate.rollup_group as own
            on own.shape_id = asked.shape_id and own.tenant_id = asked.tenant_id
            and own.digest = asked.own_digest
        left join tallygate.rollup_group as other
            on other.shape_id = asked.shape_id and other.tenant_id = asked.tenant_id
            and other.digest = asked.other_digest;
end
$$;
comment on function tallygate.resolve_groups is
    'Find the groups of [shape, tenant, values], by their place, making those that are new: 10,000'
    ' per tenant and shape, and one for all others.';

create function tallygate.join_levels(touched jsonb) returns void
    language plpgsql
    set search_path = pg_catalog
    as $$
#variable_conflict use_column
declare
    coarse integer;
begin
    for coarse in 0..2 loop
        update tallygate.group_usage as rollup set
            first_at = whole.first_at, area = whole.area,
            last_at = whole.last_at, last_id = whole.last_id, last = whole.last
        from (
            select group_id, bucket, min(first_at) as first_at,
                -- Each holds until the next one of the bucket; the last one's time is its reader's.
                sum(area + last::numeric * coalesce(
                    tallygate.microseconds(next_at) - tallygate.microseconds(last_at), 0
                )) as area,
                (array_agg(last_at order by last_at desc, last_id desc))[1] as last_at,
                (array_agg(last_id order by last_at desc, last_id desc))[1] as last_id,
                (array_agg(last order by last_at desc, last_id desc))[1] as last
            from (
                select part.*, lead(part.first_at) over (
                    partition by part.group_id, part.bucket order by part.last_at, part.last_id
                ) as next_at
                from (
                    select touch.group_id, touch.bucket, level.at as first_at, 0::numeric as area,
                        level.at as last_at, level.event_id as last_id, level.amount as last
                    from (
                        select distinct (part ->> 0)::bigint as group_id, tallygate.instant(
                            tallygate.bucket_of((part ->> 1)::bigint, 0)) as bucket
                        from jsonb_array_elements(touched) as found (part)
                    ) as touch
                    join tallygate.group_level as level
                        on level.group_id = touch.group_id and level.arrived
                        and level.at >= touch.bucket
                        and level.at < touch.bucket + interval '1 minute'
                    where coarse = 0
                    union all
                    select touch.group_id, touch.bucket, fine.first_at, fine.area,
                        fine.last_at, fine.last_id, fine.last
                    from (
                        select distinct (part ->> 0)::bigint as group_id, tallygate.instant(
                            tallygate.bucket_of((part ->> 1)::bigint, coarse)) as bucket
                        from jsonb_array_elements(touched) as found (part)
                    ) as touch
                    join tallygate.group_usage as fine
                        on fine.group_id = touch.group_id and fine.level = coarse - 1
                        and fine.bucket >= touch.bucket
                        and fine.bucket < touch.bucket
                            + (array['1 minute', '1 hour', '1 day'])[coarse + 1]::interval
                        and fine.first_at is not null
                    where coarse > 0
                ) as part
            ) as part
            group by group_id, bucket
        ) as whole
        where rollup.group_id = whole.group_id and rollup.level = coarse
            and rollup.bucket = whole.bucket;
    end loop;
end
$$;
comment on function tallygate.join_levels is
    'Join levels, by minute, hour and day, around [group, microseconds] of which some have changed.'
    ' Whoever calls it has the rows of these days, so that no other changes them meanwhile.';

create function tallygate.add_groups(groups jsonb, figures jsonb, parts jsonb, levels jsonb)
    returns void
    language plpgsql
    set search_path = pg_catalog
    as $$
#variable_conflict use_column
declare
    ids bigint[];
begin
    -- Held until the commit: whoever makes rollups of these meters anew sees all of this, or none.
    perform pg_advisory_xact_lock_shared(1413825363, shape.shape_id)
    from (
        select distinct (part ->> 0)::integer as shape_id
        from jsonb_array_elements(groups) as found (part)
        order by 1
    ) as shape;
    select array_agg(group_id order by place) into ids from tallygate.resolve_groups(groups);
    insert into tallygate.group_usage as rollup
        (group_id, level, bucket, count, sum, max, min, last_at, last_id, last)
    select group_id, level, tallygate.instant(bucket), sum(count)::bigint, sum(sum),
        coalesce(max(max) filter (where count > 0), 0),
        coalesce(min(min) filter (where count > 0), 0),
        (array_agg(last_at order by last_at desc nulls last, last_id desc))[1],
        (array_agg(last_id order by last_at desc nulls last, last_id desc))[1],
        (array_agg(last order by last_at desc nulls last, last_id desc))[1]
    from (
        select ids[(part ->> 0)::integer + 1] as group_id, of.level,
            tallygate.bucket_of((part ->> 1)::bigint, of.level) as bucket,
            (part ->> 2)::bigint as count, (part ->> 3)::numeric as sum,
            (part ->> 4)::bigint as max, (part ->> 5)::bigint as min,
            tallygate.instant((part ->> 6)::bigint) as last_at,
            (part ->> 7) collate "C" as last_id, (part ->> 8)::bigint as last
        from jsonb_array_elements(figures) as found (part)
        cross join generate_series(0, 2) as of (level)
    ) as whole
    group by group_id, level, bucket
    order by group_id, level, bucket
    on conflict (group_id, level, bucket) do update set
        count = rollup.count + excluded.count,
        sum = rollup.sum + excluded.sum,
        max = case
            when rollup.count = 0 then excluded.max
            when excluded.count = 0 then rollup.max
            else greatest(rollup.max, excluded.max)
        end,
        min = case
            when rollup.count = 0 then excluded.min
            when excluded.count = 0 then rollup.min
            else least(rollup.min, excluded.min)
        end,
        (last_at, last_id, last) = (
            select each.last_at, each.last_id, each.last
            from (values
                (rollup.last_at, rollup.last_id, rollup.last),
                (excluded.last_at, excluded.last_id, excluded.last)
            ) as each (last_at, last_id, last)
            order by each.last_at desc nulls last, each.last_id desc
            limit 1
        );
    insert into tallygate.group_part as rollup (group_id, level, bucket, key, units)
    select group_id, level, tallygate.instant(bucket), key, sum(units)
    from (
        select ids[(part ->> 0)::integer + 1] as group_id, of.level,
            tallygate.bucket_of((part ->> 1)::bigint, of.level) as bucket,
            (part ->> 2) collate "C" as key, (part ->> 3)::numeric as units
        from jsonb_array_elements(parts) as found (part)
        cross join generate_series(0, 2) as of (level)
    ) as whole
    group by group_id, level, bucket, key
    order by group_id, level, bucket, key
    on conflict (group_id, level, bucket, key) do update set
        units = rollup.units + excluded.units;
    if jsonb_array_length(levels) = 0 then
        return;
    end if;
    insert into tallygate.group_level as rollup (group_id, at, event_id, amount, arrived)
    select group_id, at, event_id, sum(amount)::bigint, bool_or(arrived)
    from (
        select ids[(part ->> 0)::integer + 1] as group_id,
            tallygate.instant((part ->> 1)::bigint) as at, (part ->> 2) collate "C" as event_id,
            (part ->> 3)::bigint as amount, (part ->> 4)::boolean as arrived
        from jsonb_array_elements(levels) as found (part)
    ) as whole
    group by group_id, at, event_id
    order by group_id, at, event_id
    on conflict (group_id, at, event_id) do update set
        amount = rollup.amount + excluded.amount,
        arrived = rollup.arrived or excluded.arrived;
    perform tallygate.join_levels(
        (
            select jsonb_agg(jsonb_build_array(group_id, minute))
            from (
                select distinct ids[(part ->> 0)::integer + 1] as group_id,
                    tallygate.bucket_of((part ->> 1)::bigint, 0) as minute
                from jsonb_array_elements(levels) as found (part)
            ) as touched
        )
    );
end
$$;
comment on function tallygate.add_groups is
    'Add usage by minute to the rollups of its groups, in the order of their keys. figures: [place,'
    ' microseconds, count, sum, max, min, last_at, last_id, last]; parts: [place, microseconds,'
    ' key, units]; levels: [place, microseconds, event, amount, arrived]. A place is in groups.';

create function tallygate.pieces_of(
    numbers integer[], levels integer[], starts_us bigint[], ends_us bigint[]
) returns table (number integer, level integer, starts timestamptz, ends timestamptz)
    language sql stable
    as $$
        select piece.number, piece.level, tallygate.instant(piece.start_us),
            tallygate.instant(piece.end_us)
        from unnest(numbers, levels, starts_us, ends_us)
            as piece (number, level, start_us, end_us)
    $$;
comment on function tallygate.pieces_of is
    'Pieces of windows, by the windows'' numbers: buckets of a level that follow each other.';

create function tallygate.kept_groups(asked_tenant text, shapes integer[], places integer[])
    returns table (shape_id integer, group_id bigint, kept jsonb)
    language sql stable
    as $$
        select own.shape_id, own.group_id, case when places is null then own.group_values else (
            select coalesce(jsonb_agg(own.group_values -> each.place order by each.nth), '[]')
            from unnest(places) with ordinality as each (place, nth)
        ) end
        from tallygate.rollup_group as own
        where own.tenant_id = asked_tenant and own.shape_id = any(shapes)
    $$;
comment on function tallygate.kept_groups is
    'A tenant''s groups of shapes, each with those values that are kept apart, null for all.';
