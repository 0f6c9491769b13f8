-- The schema's part that makes rollups of groups anew from the ledger. It follows
-- `schema_meters.sql`.

create function tallygate.event_field(event tallygate.usage_event, name text) returns text
    language sql stable parallel safe
    as $$
        select coalesce(
            event.dimensions ->> name,
            case name
                when 'subject_id' then event.subject_id
                when 'resource_id' then event.resource_id
                when 'session_id' then event.session_id
                when 'region' then event.region
                when 'sku' then event.sku
                when 'correlation_id' then event.correlation_id
                when 'sdk' then event.sdk
            end,
            ''
        )
    $$;
comment on function tallygate.event_field is
    'An event''s value of a dimension, or else of a field of its context, or nothing.';

create function tallygate.sketch_slot(amount bigint) returns text
    language sql immutable strict parallel safe
    as $$
        select (found.shift * 64 + (amount >> found.shift))::text
        from (
            select greatest(length(ltrim(amount::bit(64)::text, '0')) - 7, 0) as shift
        ) as found
    $$;
comment on function tallygate.sketch_slot is
    'The slot of an amount, as domain/sketch.py has it: 64 in each octave, whole numbers only.';

create function tallygate.shaped_events(
    asked_shape integer, asked_tenant text, starts timestamptz, ends timestamptz
) returns table (
    tenant_id text, group_values jsonb, at_us bigint, event_id text, refund boolean, amount bigint,
    part_key text, part_units bigint
)
    language sql stable
    as $$
        select
            e.tenant_id,
            coalesce(
                (
                    select jsonb_agg(tallygate.event_field(e, field.name) order by field.place)
                    from jsonb_array_elements_text(shape.definition -> 'group_by')
                        with ordinality as field (name, place)
                ),
                '[]'
            ),
            tallygate.microseconds(e.event_time),
            case when e.refund_of = '' then e.event_id else e.refund_of end,
            e.refund_of <> '',
            e.amount,
            case shape.definition ->> 'aggregation'
                when 'unique'
                    then nullif(tallygate.event_field(e, shape.definition ->> 'unique_by'), '')
                when 'percentile'
                    then case when e.refund_of = '' then tallygate.sketch_slot(e.amount) end
            end,
            case when shape.definition ->> 'aggregation' = 'unique' then e.amount else 1 end
        from tallygate.rollup_shape as shape
        -- Whatever was used has a row by day: tenants are known without a look at every event.
        cross join lateral (
            select distinct day.tenant_id from tallygate.usage_day as day
            where day.meter = shape.meter
                and (asked_tenant is null or day.tenant_id = asked_tenant)
                and day.bucket >= date_trunc('day', starts, 'UTC') and day.bucket < ends
        ) as tenant
        join tallygate.usage_event as e
            on e.tenant_id = tenant.tenant_id and e.meter = shape.meter
            and e.event_time >= starts and e.event_time < ends
        where shape.shape_id = asked_shape
    $$;
comment on function tallygate.shaped_events is
    'The ledger''s events of a shape''s meter, each with its group and with what it adds to parts.';

create function tallygate.grouped_events(
    asked_shape integer, asked_tenant text, starts timestamptz, ends timestamptz
) returns table (
    tenant_id text, group_id bigint, at_us bigint, event_id text, refund boolean, amount bigint,
    part_key text, part_units bigint
)
    language sql stable
    as $$
        select event.tenant_id, coalesce(own.group_id, other.group_id), event.at_us,
            event.event_id, event.refund, event.amount, event.part_key, event.part_units
        from (
            select found.*, md5(found.group_values::text) as own_digest,
                md5(tallygate.other_group(found.group_values)::text) as other_digest
            from tallygate.shaped_events(asked_shape, asked_tenant, starts, ends) as found
            -- So that each event's group is spelled once, and not for each group it may be.
            offset 0
        ) as event
        left join tallygate.rollup_group as own
            on own.shape_id = asked_shape and own.tenant_id = event.tenant_id
            and own.digest = event.own_digest
        left join tallygate.rollup_group as other
            on other.shape_id = asked_shape and other.tenant_id = event.tenant_id
            and other.digest = event.other_digest
    $$;
comment on function tallygate.grouped_events is
    'The ledger''s events of a shape''s meter, each with the group that it is rolled up in.';

create function tallygate.switch_shape(asked_meter text, asked_definition jsonb) returns integer
    language plpgsql
    set search_path = pg_catalog
    as $$
declare
    made integer;
begin
    -- Every ledger transaction has this lock, shared, from before it reads the shapes: those that
    -- run have committed by now, and those that come read what is written here.
    perform pg_advisory_xact_lock(1413825362, 0);
    -- Of two who follow the same catalog, the second finds it done.
    if exists (
        select from tallygate.rollup_shape
        where meter = asked_meter and active and definition is not distinct from asked_definition
    ) then
        return 0;
    end if;
    update tallygate.rollup_shape set active = false where meter = asked_meter and active;
    insert into tallygate.rollup_shape (meter, definition, complete)
    select asked_meter, asked_definition, case
        when exists (select from tallygate.usage_day where meter = asked_meter)
            then '{}'::tstzmultirange
        else '{(,)}'::tstzmultirange
    end
    returning shape_id into made;
    return made;
end
$$;
comment on function tallygate.switch_shape is
    'Give a meter another shape, which every ledger transaction follows from now on.';

create function tallygate.rebuild_rollups(
    asked_shape integer, starts timestamptz, ends timestamptz, known tstzrange
) returns bigint
    language plpgsql
    set search_path = pg_catalog
    set timezone = 'UTC'
    as $$
#variable_conflict use_column
declare
    aggregation text;
    first_day timestamptz := date_trunc('day', starts);
    last_day timestamptz := date_trunc('day', ends - interval '1 microsecond') + interval '1 day';
    lengths text[] := array['minute', 'hour', 'day'];
    events bigint;
begin
    if starts >= ends or starts <> date_trunc('hour', starts) or ends <> date_trunc('hour', ends)
    then
        raise exception 'rollups are made anew by whole hours'
            using errcode = 'invalid_parameter_value';
    end if;
    -- Whoever adds to these rollups has committed by now, or does it after our commit.
    perform pg_advisory_xact_lock(1413825363, asked_shape);
    select definition ->> 'aggregation' into aggregation
    from tallygate.rollup_shape where shape_id = asked_shape and active;
    if aggregation is null then
        return -1;
    end if;
    perform tallygate.resolve_groups(
        (
            select coalesce(
                jsonb_agg(jsonb_build_array(asked_shape, tenant_id, group_values)), '[]'
            )
            from (
                select distinct tenant_id, group_values
                from tallygate.shaped_events(asked_shape, null, starts, ends)
            ) as found
        )
    );
    delete from tallygate.group_usage as rollup using tallygate.rollup_group as of
    where of.shape_id = asked_shape and rollup.group_id = of.group_id and (
        (level < 2 and bucket >= starts and bucket < ends)
        or (level = 2 and bucket >= first_day and bucket < last_day)
    );
    delete from tallygate.group_part as rollup using tallygate.rollup_group as of
    where of.shape_id = asked_shape and rollup.group_id = of.group_id and (
        (level < 2 and bucket >= starts and bucket < ends)
        or (level = 2 and bucket >= first_day and bucket < last_day)
    );
    delete from tallygate.group_level as rollup using tallygate.rollup_group as of
    where of.shape_id = asked_shape and rollup.group_id = of.group_id
        and at >= starts and at < ends;
    insert into tallygate.group_usage
        (group_id, level, bucket, count, sum, max, min, last_at, last_id, last)
    select group_id, 0, tallygate.instant(tallygate.bucket_of(at_us, 0)),
        count(*) filter (where not refund), sum(amount),
        coalesce(max(amount) filter (where not refund), 0),
        coalesce(min(amount) filter (where not refund), 0),
        (array_agg(tallygate.instant(at_us) order by at_us desc, event_id collate "C" desc)
            filter (where not refund and aggregation = 'latest'))[1],
        (array_agg(event_id order by at_us desc, event_id collate "C" desc)
            filter (where not refund and aggregation = 'latest'))[1],
        (array_agg(amount order by at_us desc, event_id collate "C" desc)
            filter (where not refund and aggregation = 'latest'))[1]
    from tallygate.grouped_events(asked_shape, null, starts, ends)
    group by 1, 2, 3;
    get diagnostics events = row_count;
    insert into tallygate.group_part (group_id, level, bucket, key, units)
    select group_id, 0, tallygate.instant(tallygate.bucket_of(at_us, 0)), part_key, sum(part_units)
    from tallygate.grouped_events(asked_shape, null, starts, ends)
    where part_key is not null
    group by 1, 2, 3, 4;
    for coarse in 1..2 loop
        insert into tallygate.group_usage
            (group_id, level, bucket, count, sum, max, min, last_at, last_id, last)
        select group_id, coarse, date_trunc(lengths[coarse + 1], bucket),
            sum(count), sum(sum),
            coalesce(max(max) filter (where count > 0), 0),
            coalesce(min(min) filter (where count > 0), 0),
            (array_agg(last_at order by last_at desc nulls last, last_id desc))[1],
            (array_agg(last_id order by last_at desc nulls last, last_id desc))[1],
            (array_agg(last order by last_at desc nulls last, last_id desc))[1]
        from tallygate.group_usage join tallygate.rollup_group using (group_id)
        where shape_id = asked_shape and level = coarse - 1
            and bucket >= (case when coarse = 1 then starts else first_day end)
            and bucket < (case when coarse = 1 then ends else last_day end)
        group by 1, 2, 3;
        insert into tallygate.group_part (group_id, level, bucket, key, units)
        select group_id, coarse, date_trunc(lengths[coarse + 1], bucket), key, sum(units)
        from tallygate.group_part join tallygate.rollup_group using (group_id)
        where shape_id = asked_shape and level = coarse - 1
            and bucket >= (case when coarse = 1 then starts else first_day end)
            and bucket < (case when coarse = 1 then ends else last_day end)
        group by 1, 2, 3, 4;
    end loop;
    if aggregation = 'time_weighted' then
        insert into tallygate.group_level (group_id, at, event_id, amount, arrived)
        select group_id, tallygate.instant(at_us), event_id, sum(amount), bool_or(not refund)
        from tallygate.grouped_events(asked_shape, null, starts, ends)
        group by 1, 2, 3;
        -- Hours beside ours are in days that were made anew.
        perform tallygate.join_levels(
            (
                select jsonb_agg(jsonb_build_array(group_id, tallygate.microseconds(bucket)))
                from tallygate.group_usage join tallygate.rollup_group using (group_id)
                where shape_id = asked_shape and (
                    (level = 0 and bucket >= starts and bucket < ends)
                    or (level = 1 and bucket >= first_day and bucket < last_day)
                )
            )
        );
    end if;
    update tallygate.rollup_shape set complete = complete + tstzmultirange(known)
    where shape_id = asked_shape;
    return events;
end
$$;
comment on function tallygate.rebuild_rollups is
    'Make the rollups of a shape anew from the ledger, over whole hours; then all events of `known`'
    ' are in them. Returns how many minutes have usage, -1 where the shape is in effect no more.';
