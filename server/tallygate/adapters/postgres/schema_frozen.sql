-- The schema's part on what is frozen of meters that take more than figures, after
-- `schema_periods.sql` and `schema_remake.sql`: their rules, and what is to be looked at again.

-- By which rule a period's number of a meter is folded; where there is none, figures tell it.
create table tallygate.period_rule (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    meter text collate "C" not null,
    definition jsonb not null,
    percentile_ppm bigint not null default 0,
    primary key (tenant_id, start_at, meter)
);
comment on table tallygate.period_rule is
    'How a period is billed for a meter that takes more than count, sum, max and min, as it was when'
    ' that was first frozen or adjusted. Append-only.';
comment on column tallygate.period_rule.start_at is
    'The period; -infinity for usage of before the tenant''s first period.';
comment on column tallygate.period_rule.definition is
    'Aggregation, unique_by and group_by, as in rollup_shape.';

create table tallygate.period_touched (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    meter text collate "C" not null,
    primary key (tenant_id, start_at, meter)
);
comment on table tallygate.period_touched is
    'Sealed periods for which events of a meter came since the tenant''s last period was sealed:'
    ' whoever seals the next one has their numbers looked at again.';

create table tallygate.period_review (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    closed_start timestamptz not null,
    meter text collate "C" not null,
    primary key (tenant_id, start_at, closed_start, meter)
);
comment on table tallygate.period_review is
    'Of which earlier periods, -infinity for before all, a period bills by how much a meter''s number'
    ' would have been another. Settled at its sealing. Append-only.';

-- Runs as its owner: who notes late events needs no right to what is made of them.
create function tallygate.touch_periods() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into tallygate.period_touched (tenant_id, start_at, meter)
    select distinct tenant_id, coalesce(closed_start, '-infinity'), meter
    from fresh
    order by 1, 2, 3
    on conflict do nothing;
    return null;
end
$$;
comment on function tallygate.touch_periods is
    'Note for which periods late events came, in the transaction that stores them.';
revoke execute on function tallygate.touch_periods from public;
create trigger touched after insert on tallygate.late_event
    referencing new table as fresh
    for each statement execute function tallygate.touch_periods();

-- `own` is the newest revision of the period whose late events count; of those that were allocated
-- to other periods, those count that start no later than `until`. With `alone`, only events count
-- that were allocated to just that period, which has not been sealed before.
create function tallygate.covered_events(
    asked_tenant text, asked_meter text, definition jsonb, starts timestamptz, ends timestamptz,
    own integer, until timestamptz, alone boolean
) returns table (
    group_values jsonb, at timestamptz, event_id text, refund boolean, amount bigint,
    part_key text, part_units bigint
)
    language sql stable
    as $$
        select
            coalesce(
                (
                    select jsonb_agg(tallygate.event_field(e, field.name) order by field.place)
                    from jsonb_array_elements_text(definition -> 'group_by')
                        with ordinality as field (name, place)
                ),
                '[]'
            ),
            (e).event_time,
            case when (e).refund_of = '' then (e).event_id else (e).refund_of end,
            (e).refund_of <> '',
            (e).amount,
            case definition ->> 'aggregation'
                when 'unique' then nullif(tallygate.event_field(e, definition ->> 'unique_by'), '')
                when 'percentile'
                    then case when (e).refund_of = '' then tallygate.sketch_slot((e).amount) end
            end,
            case when definition ->> 'aggregation' = 'unique' then (e).amount else 1 end
        from (
            select event as e from tallygate.usage_event as event
            where not alone and starts > '-infinity'
                and event.tenant_id = asked_tenant and event.meter = asked_meter
                and event.event_time >= starts and event.event_time < ends
                and not exists (
                    select from tallygate.late_event as late
                    where late.tenant_id = event.tenant_id and late.event_id = event.event_id
                        and not case
                            when late.allocated_start = late.closed_start
                                then late.allocated_revision <= own
                            else late.allocated_start <= until
                        end
                )
            union all
            select event from tallygate.late_event as late
            join tallygate.usage_event as event
                on event.tenant_id = late.tenant_id and event.meter = late.meter
                and event.event_time = late.event_time and event.event_id = late.event_id
            where (alone or starts = '-infinity')
                and late.tenant_id = asked_tenant and late.meter = asked_meter
                and late.closed_start is not distinct from nullif(starts, '-infinity')
                and late.closed_start is distinct from late.allocated_start
                and late.allocated_start <= until
                and (not alone or late.allocated_start = until)
        ) as found
    $$;
comment on function tallygate.covered_events is
    'The events of a meter that a period''s number is made of, each with its group and with what it'
    ' adds to parts. A period that starts at -infinity is all before the tenant''s first.';

create function tallygate.folded_events(
    asked_tenant text, asked_meter text, definition jsonb, start_us bigint, end_us bigint,
    own integer, until_us bigint, alone boolean
) returns table (
    group_values jsonb, at timestamptz, event_id text, refund boolean, amount bigint,
    part_key text, part_units bigint
)
    language sql stable
    as $$
        select
            -- A group that has no rollups of its own, beside that of all others, is in that one.
            case when other.group_id is not null and own_group.group_id is null
                then other.group_values else event.group_values end,
            event.at, event.event_id, event.refund, event.amount, event.part_key, event.part_units
        from (
            select found.*, md5(found.group_values::text) as digest,
                md5(tallygate.other_group(found.group_values)::text) as other_digest
            from tallygate.covered_events(
                asked_tenant, asked_meter, definition,
                coalesce(tallygate.instant(start_us), '-infinity'), tallygate.instant(end_us),
                own, coalesce(tallygate.instant(until_us), '-infinity'), alone
            ) as found
            -- So that each event's group is spelled once.
            offset 0
        ) as event
        left join tallygate.rollup_shape as shape
            on shape.active and shape.meter = asked_meter and shape.definition = $3
            and jsonb_array_length(event.group_values) > 0
        left join tallygate.rollup_group as own_group
            on own_group.shape_id = shape.shape_id and own_group.tenant_id = asked_tenant
            and own_group.digest = event.digest
        left join tallygate.rollup_group as other
            on other.shape_id = shape.shape_id and other.tenant_id = asked_tenant
            and other.digest = event.other_digest
    $$;
comment on function tallygate.folded_events is
    'The same, each in the group that it is rolled up in; times are microseconds, null for those'
    ' before all.';

do $$
declare
    name text;
begin
    foreach name in array array['period_rule', 'period_review'] loop
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
