-- Capture in an app's own database, part 3 of 3: what triggers do, and how levels are folded.

-- Returns the statement that measures rows: `sources` are what to select from, each by its sign.
-- With `absolute` the sources are all there is, and what is known already is taken off.
create or replace function tallygate.capture_statement(
    rule tallygate.capture_rule, sources text[], signs integer[], absolute boolean default false
) returns text
language plpgsql stable as $$
declare
    dimensions text := coalesce((
        select pg_catalog.string_agg(pg_catalog.format('%L, (%s)::text', key, value), ', ')
        from pg_catalog.jsonb_each_text(rule.dimensions)
    ), '');
    too_long text := coalesce((
        select pg_catalog.string_agg(
            pg_catalog.format(' or length(dimensions ->> %L) > 256', key), ''
        )
        from pg_catalog.jsonb_object_keys(rule.dimensions) as key
    ), '');
    seen text := '';
    kept text;
begin
    for i in 1 .. pg_catalog.array_length(sources, 1) loop
        seen := seen || case when i > 1 then ' union all ' else '' end || pg_catalog.format(
            'select %s as sign, (%s)::text as tenant_id, (%s)::bigint as units, '
            'jsonb_strip_nulls(jsonb_build_object(%s)) as dimensions from %s',
            signs[i], rule.tenant, rule.amount, dimensions, sources[i]
        );
    end loop;
    seen := 'select *, case when coalesce(units, 0) = 0 then null'
        || ' when units < 0 then ''the amount is below 0'''
        || ' when units > 9007199254740991 then ''the amount is above 2^53 - 1'''
        || ' when tenant_id is null then ''the tenant is null'''
        || ' when tenant_id !~ ''^[^[:space:][:cntrl:]]{1,128}$'' then ''the tenant is no id'''
        || ' when false' || too_long || ' then ''a dimension has more than 256 characters'''
        || ' end as fault from (' || seen || ') as seen';
    kept := 'from measured where fault is null and units > 0';
    if absolute then
        kept := pg_catalog.format(
            $part$from (select tenant_id, dimensions, sign * units as units from measured
            where fault is null and units > 0 union all
            select tenant_id, dimensions, -units from tallygate.capture_sums(%s)) as compared
            group by tenant_id, dimensions having sum(units) <> 0$part$, rule.capture_id);
    end if;
    return 'with measured as materialized (' || seen || '), noted as ('
        || 'insert into tallygate.capture_unmeasured (capture_id, row_count, reason) select '
        || rule.capture_id || ', count(*), '
        || case when rule.strictly then 'tallygate.capture_refused(fault)' else 'fault' end
        || ' from measured where fault is not null group by fault) ' || case
        when rule.kind = 'level' then
            'insert into tallygate.capture_delta'
            || ' (capture_id, tenant_id, dimensions, units, captured_at) select '
            || rule.capture_id || ', tenant_id, dimensions, sum('
            || case when absolute then 'units' else 'sign * units' end
            || '), clock_timestamp() ' || kept || case when absolute then '' else
            ' group by tenant_id, dimensions having sum(sign * units) <> 0' end
        else pg_catalog.format(
            'insert into tallygate.captured'
            || ' (capture_id, tenant_id, meter, amount, captured_at, dimensions) select %s, '
            || 'tenant_id, %L, %s, clock_timestamp(), dimensions %s%s',
            rule.capture_id, rule.meter,
            case when rule.per = 'row' then 'units' else 'sum(units)' end, kept,
            case when rule.per = 'row' then '' else ' group by tenant_id, dimensions' end)
        end;
end
$$;

create or replace function tallygate.capture_refused(fault text) returns text
language plpgsql as $$
begin
    raise exception 'tallygate: a row cannot be measured: %', fault
        using errcode = 'check_violation';
end
$$;

-- Makes the function and the trigger of one kind of statement. The function is its owner's, so that
-- whoever writes to the table needs no right to the outbox; its names are all spelled out.
create or replace function tallygate.capture_trigger(rule_id integer, event text) returns void
language plpgsql as $$
declare
    rule tallygate.capture_rule := (
        select live from tallygate.capture_rule as live where live.capture_id = rule_id
    );
    called text := (
        select pg_catalog.quote_ident(relname) from pg_catalog.pg_class where oid = rule.relation
    );
    name text := pg_catalog.format('capture_%s_%s', rule_id, event);
    trigger_name text := pg_catalog.format('tallygate_capture_%s_%s', rule_id, event);
    level boolean := rule.kind = 'level';
    rows text[] := case event
        when 'insert' then array['capture_new']
        when 'update' then case when level then array['capture_new', 'capture_old']
            else array['capture_new'] end
        when 'delete' then array['capture_old']
        else array[tallygate.capture_table(rule.relation)] end;
    signs integer[] := case
        when not level then array[1]
        when event = 'insert' then array[1]
        when event = 'update' then array[1, -1]
        else array[-1] end;
    work text := tallygate.capture_statement(rule, array(
        select pg_catalog.format('%s as %s', each, called) from pg_catalog.unnest(rows) as each
    ), signs) || ';';
begin
    if not rule.strictly then
        work := 'begin ' || work || ' exception when others then begin '
            || tallygate.capture_by_row(rule, rows, signs, called)
            || 'exception when others then raise warning ''tallygate: nothing is captured: %'', '
            || 'sqlerrm; end; end;';
    end if;
    execute pg_catalog.format(
        'create function tallygate.%I() returns trigger language plpgsql security definer '
        'set search_path = pg_catalog, pg_temp as %L',
        name, E'#variable_conflict use_column\ndeclare capture_row record; begin '
        || work || ' return null; end'
    );
    execute pg_catalog.format('revoke all on function tallygate.%I() from public', name);
    execute pg_catalog.format(
        'create trigger %I %s %s on %s %s for each statement execute function tallygate.%I()',
        trigger_name, case when event = 'truncate' then 'before' else 'after' end, event,
        tallygate.capture_table(rule.relation), case event
            when 'insert' then 'referencing new table as capture_new'
            when 'update' then 'referencing old table as capture_old new table as capture_new'
            when 'delete' then 'referencing old table as capture_old' else '' end, name
    );
end
$$;

-- What is done where a statement's rows cannot be measured together: each alone, and those that
-- cannot are counted with the reason. The table's name is that of the moment: one that was written
-- down would not compile after a rename, and fail the app's statement.
create or replace function tallygate.capture_by_row(
    rule tallygate.capture_rule, rows text[], signs integer[], called text
) returns text
language plpgsql stable as $$
declare
    work text := '';
begin
    for i in 1 .. pg_catalog.array_length(rows, 1) loop
        work := work || pg_catalog.format(
            'for capture_row in select * from %s loop begin '
            'execute replace(%L, ''capture_row_type'', tg_relid::regclass::text) '
            'using to_jsonb(capture_row); exception when others then '
            'insert into tallygate.capture_unmeasured (capture_id, row_count, reason) '
            'values (%s, 1, sqlstate || '' '' || sqlerrm); end; end loop; ',
            rows[i], tallygate.capture_statement(rule, array[
                '(select (jsonb_populate_record(null::capture_row_type, $1)).*) as ' || called
            ], array[signs[i]]), rule.capture_id
        );
    end loop;
    return work;
end
$$;

-- Adds deltas to their levels, and has each level told once for each span of `every_s` in which it
-- has changed. Returns how many deltas that were. A level's times rise: what was committed after
-- its time was told counts from right after it.
create or replace function tallygate.capture_fold(at_most integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    folded integer;
begin
    -- Two at once would give a level two numbers for one moment.
    if not pg_try_advisory_xact_lock(hashtext('tallygate.capture_fold')) then
        return 0;
    end if;
    with due as (
        select delta.delta_id from tallygate.capture_delta as delta
        join tallygate.capture_rule as rule using (capture_id)
        where rule.every_s = 0 or rule.ended_at is not null or delta.captured_at
            < date_bin(rule.every_s * interval '1 second', clock_timestamp(), 'epoch')
        order by delta.delta_id limit at_most
    ),
    taken as (
        delete from tallygate.capture_delta as delta using due where delta.delta_id = due.delta_id
        returning
            delta.capture_id, delta.tenant_id, delta.dimensions, delta.units, delta.captured_at
    ),
    spans as (
        select
            capture_id, taken.tenant_id, taken.dimensions,
            sum(taken.units) as units, max(taken.captured_at) as captured_at
        from taken join tallygate.capture_rule as rule using (capture_id)
        group by capture_id, taken.tenant_id, taken.dimensions, case when rule.every_s > 0 then
            date_bin(rule.every_s * interval '1 second', taken.captured_at, 'epoch') end
    ),
    numbered as (
        select spans.*, row_number() over each_key as number,
            coalesce(level.units, 0) + sum(spans.units) over each_key as level_units,
            coalesce(level.level_at, '-infinity') as level_at
        from spans left join tallygate.capture_level as level
            using (capture_id, tenant_id, dimensions)
        window each_key as (
            partition by capture_id, tenant_id, dimensions order by spans.captured_at
        )
    ),
    told as (
        select *, greatest(captured_at, level_at + number * interval '1 microsecond') as told_at
        from numbered
    ),
    kept as (
        insert into tallygate.capture_level (capture_id, tenant_id, dimensions, units, level_at)
        select distinct on (capture_id, tenant_id, dimensions)
            capture_id, tenant_id, dimensions, level_units, told_at
        from told order by capture_id, tenant_id, dimensions, number desc
        on conflict (capture_id, tenant_id, dimensions)
        do update set units = excluded.units, level_at = excluded.level_at
    ),
    below as (
        insert into tallygate.capture_unmeasured (capture_id, row_count, reason)
        select capture_id, count(*), 'a level is below 0: have it counted anew'
        from told where level_units < 0 group by capture_id
    ),
    outgoing as (
        insert into tallygate.captured
            (capture_id, tenant_id, meter, amount, captured_at, dimensions)
        select told.capture_id, told.tenant_id, rule.meter,
            least(greatest(told.level_units, 0), 9007199254740991), told.told_at, told.dimensions
        from told join tallygate.capture_rule as rule using (capture_id)
        where told.units <> 0
        order by told.told_at
    )
    select count(*) into folded from taken;
    return folded;
end
$$;

revoke all on function tallygate.capture_fold(integer) from public;

insert into tallygate.capture_version (version) values (1) on conflict do nothing;
