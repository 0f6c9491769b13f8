-- Capture in an app's own database, part 2 of 3: what people call.

-- Returns a table's name with its schema, whatever the search_path is.
create or replace function tallygate.capture_table(relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('%I.%I', nspname, relname)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = relation
$$;

-- Returns an expression over a table's columns as Postgres writes it, with all schemas named, so
-- that nobody's search_path decides what it means. Refused: what is no single expression over one
-- row (aggregates, subqueries), and what is of another type than wanted.
create or replace function tallygate.capture_expression(
    relation regclass, expression text, wanted text, what text, steady boolean
) returns text
language plpgsql as $$
declare
    name text := (select relname from pg_catalog.pg_class where oid = relation);
    probe text := pg_catalog.format('pg_temp.%I', name);
    whole text := tallygate.capture_table(relation);
    found text;
    kind text;
begin
    execute pg_catalog.format('create temporary table %I (like %s)', name, whole);
    begin
        execute pg_catalog.format(
            E'alter table %s add constraint capture_probe check ((%s\n) is not null)',
            probe, expression
        );
    exception when others then
        raise exception 'tallygate: % is no expression over a row of %: %',
            what, relation, sqlerrm using errcode = 'invalid_parameter_value';
    end;
    found := tallygate.capture_written(probe::regclass);
    if found is null then
        raise exception 'tallygate: % is not one expression', what
            using errcode = 'invalid_parameter_value';
    end if;
    execute pg_catalog.format('create temporary view capture_typed as select %s as it from %s',
        found, probe);
    select pg_catalog.format_type(atttypid, null) into kind
    from pg_catalog.pg_attribute
    where attrelid = 'pg_temp.capture_typed'::regclass and attname = 'it';
    if wanted = 'integer' and kind not in ('smallint', 'integer', 'bigint') then
        raise exception 'tallygate: % is of type %, and has to be a whole number', what, kind
            using errcode = 'datatype_mismatch', hint = 'Round it: ceil(...)::bigint';
    end if;
    if steady then
        begin
            execute pg_catalog.format('create index on %s ((%s))', probe, found);
        exception when others then
            raise exception 'tallygate: % may give another value for the same row: %', what, sqlerrm
                using errcode = 'invalid_parameter_value';
        end;
    end if;
    drop view pg_temp.capture_typed;
    execute pg_catalog.format('drop table %s', probe);
    return found;
end
$$;

create or replace function tallygate.capture_written(probe regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- What was put around it is taken off again; what was more than one expression ends otherwise,
    -- as in `((a IS NOT NULL) OR (b IS NOT NULL))`.
    select case when written like '(% IS NOT NULL)'
        then substr(written, 2, length(written) - 1 - length(' IS NOT NULL)')) end
    from (
        select pg_get_expr(conbin, conrelid) as written
        from pg_constraint where conrelid = probe and conname = 'capture_probe'
    ) as found
$$;

create or replace function tallygate.capture(
    source text,
    meter text,
    tenant text,
    amount text default '1',
    events text default 'insert',
    dimensions jsonb default '{}',
    per text default 'row',
    strict boolean default false
) returns integer
language plpgsql as $$
declare
    rule integer;
begin
    rule := tallygate.capture_declare(
        'use', source, meter, tenant, amount, events, dimensions, per, 0, strict
    );
    perform tallygate.capture_trigger(rule, event)
    from tallygate.capture_rule as live, pg_catalog.unnest(live.events) as event
    where live.capture_id = rule;
    return rule;
end
$$;

comment on function tallygate.capture is
'Meters each row that is written: an event of AMOUNT units of METER for TENANT.';

create or replace function tallygate.capture_level(
    source text,
    meter text,
    tenant text,
    amount text default '1',
    dimensions jsonb default '{}',
    every_s integer default 60,
    strict boolean default false
) returns integer
language plpgsql as $$
declare
    rule integer;
begin
    rule := tallygate.capture_declare(
        'level', source, meter, tenant, amount, 'insert,update,delete,truncate', dimensions,
        'statement', every_s, strict
    );
    -- Whoever writes has ended by then, and nobody begins before this is over.
    execute pg_catalog.format('lock table %s in share row exclusive mode',
        tallygate.capture_table(source::regclass));
    perform tallygate.capture_trigger(rule, event)
    from pg_catalog.unnest(array['insert', 'update', 'delete', 'truncate']) as event;
    perform tallygate.capture_count_anew(rule);
    return rule;
end
$$;

comment on function tallygate.capture_level is
'Meters what lies in a table: a tenant''s level is the sum of AMOUNT over all its rows.';

create or replace function tallygate.capture_declare(
    kind text, source text, meter text, tenant text, amount text, events text, dimensions jsonb,
    per text, every_s integer, strict boolean
) returns integer
language plpgsql as $$
declare
    relation regclass := source::regclass;
    wanted text[] := pg_catalog.string_to_array(pg_catalog.replace(events, ' ', ''), ',');
    steady boolean := kind = 'level';
    written jsonb := '{}';
    rule integer;
    dimension record;
begin
    if (select relkind from pg_catalog.pg_class where oid = relation) not in ('r', 'p') then
        raise exception 'tallygate: % is no table', relation using errcode = 'wrong_object_type';
    end if;
    if meter !~ '^[a-z0-9][a-z0-9_.-]{0,63}$' then
        raise exception 'tallygate: % is no name of a meter', meter
            using errcode = 'invalid_parameter_value';
    end if;
    if wanted = '{}' or not wanted <@ array['insert', 'update', 'delete', 'truncate']
        or (kind = 'use' and 'truncate' = any (wanted)) then
        raise exception 'tallygate: events is a list of insert, update and delete, not %', events
            using errcode = 'invalid_parameter_value';
    end if;
    if (select count(*) from pg_catalog.jsonb_object_keys(dimensions)) > 16 then
        raise exception 'tallygate: at most 16 dimensions'
            using errcode = 'invalid_parameter_value';
    end if;
    for dimension in select key, value from pg_catalog.jsonb_each_text(dimensions) loop
        if dimension.key !~ '^.{1,64}$' then
            raise exception 'tallygate: a dimension''s name has 1 to 64 characters'
                using errcode = 'invalid_parameter_value';
        end if;
        written := written || pg_catalog.jsonb_build_object(
            dimension.key, tallygate.capture_expression(
                relation, dimension.value, 'any', 'dimension ' || dimension.key, steady
            )
        );
    end loop;
    insert into tallygate.capture_rule
        (relation, meter, kind, events, tenant, amount, dimensions, per, every_s, strictly)
    values (
        relation, meter, kind, wanted,
        tallygate.capture_expression(relation, tenant, 'any', 'tenant', steady),
        tallygate.capture_expression(relation, amount, 'integer', 'amount', steady),
        written, per, every_s, strict
    )
    returning capture_id into rule;
    return rule;
exception when unique_violation then
    raise exception 'tallygate: % is captured for % already', relation, meter
        using errcode = 'duplicate_object';
end
$$;

create or replace function tallygate.uncapture(
    source text, meter text, to_zero boolean default false
) returns boolean
language plpgsql as $$
declare
    rule tallygate.capture_rule;
    event text;
begin
    update tallygate.capture_rule as live set ended_at = clock_timestamp()
    where live.relation = source::regclass and live.meter = uncapture.meter
        and live.ended_at is null
    returning * into rule;
    if not found then
        return false;
    end if;
    foreach event in array rule.events loop
        execute pg_catalog.format('drop trigger if exists %I on %s',
            pg_catalog.format('tallygate_capture_%s_%s', rule.capture_id, event),
            tallygate.capture_table(rule.relation));
        execute pg_catalog.format('drop function if exists tallygate.%I()',
            pg_catalog.format('capture_%s_%s', rule.capture_id, event));
    end loop;
    if to_zero then
        insert into tallygate.capture_delta (capture_id, tenant_id, dimensions, units, captured_at)
        select rule.capture_id, tenant_id, dimensions, -sum(units), clock_timestamp()
        from tallygate.capture_sums(rule.capture_id) group by tenant_id, dimensions
        having sum(units) <> 0;
    end if;
    return true;
end
$$;

comment on function tallygate.uncapture is
'Ends a capture; what it has captured is still handed on. TO_ZERO sets its levels to nothing.';

create or replace function tallygate.capture_count_anew(rule_id integer) returns integer
language plpgsql as $$
declare
    rule tallygate.capture_rule;
    off integer;
begin
    if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'tallygate: a level is counted in a transaction that is read committed'
            using errcode = 'invalid_transaction_state';
    end if;
    select * into rule from tallygate.capture_rule as live
    where live.capture_id = rule_id and live.kind = 'level' and live.ended_at is null;
    if not found then
        raise exception 'tallygate: % is no capture of a level', rule_id
            using errcode = 'invalid_parameter_value';
    end if;
    execute pg_catalog.format('lock table %s in share row exclusive mode',
        tallygate.capture_table(rule.relation));
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('tallygate.capture_fold'));
    execute tallygate.capture_statement(rule, array[
        tallygate.capture_table(rule.relation)
    ], array[1], true);
    get diagnostics off = row_count;
    return off;
end
$$;

comment on function tallygate.capture_count_anew is
'Counts a level anew from its table, and makes good what it is off by. Writers wait meanwhile.';

create or replace function tallygate.capture_recount(source text, meter text) returns integer
language sql as $$
    select tallygate.capture_count_anew(capture_id) from tallygate.capture_rule as live
    where live.relation = source::regclass and live.meter = capture_recount.meter
        and live.ended_at is null
$$;

-- What all that is known of a level's keys adds up to: folded, and not folded yet.
create or replace function tallygate.capture_sums(rule_id integer)
returns table (tenant_id text, dimensions jsonb, units numeric)
language sql stable as $$
    select tenant_id, dimensions, units from tallygate.capture_level where capture_id = rule_id
    union all
    select tenant_id, dimensions, units from tallygate.capture_delta where capture_id = rule_id
$$;
