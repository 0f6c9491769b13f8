-- What is frozen of meters that take more than count, sum, max and min. Columns without a default,
-- and new tables: late events are noted on in an instant.

alter table tallygate.period_total add column quantity numeric;
comment on column tallygate.period_total.quantity is
    'What the meter is billed by, where a rule tells it; null where figures do.';
comment on column tallygate.period_total.state is
    'Of levels: the one that the period began with, as `carried`.';
alter table tallygate.period_adjustment add column state jsonb;
comment on column tallygate.period_adjustment.state is
    'Where a rule tells the quantity: the closed period''s revision that it was held against, and'
    ' the level that it began with.';

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
-- to other periods, those count that start no later than `until_us`. With `alone`, only events count
-- that were allocated to just that period, which has not been sealed before.
create function tallygate.folded_events(
    asked_tenant text, asked_meter text, definition jsonb, start_us bigint, end_us bigint,
    own integer, until_us bigint, alone boolean
) returns table (
    group_values jsonb, at timestamptz, event_id text, refund boolean, amount bigint,
    part_key text
)
    language sql stable
    as $$
        select
            -- Beside the group of all others, one that has no rollups of its own is in that one.
            case
                when shape.others is null or exists (
                    select from tallygate.rollup_group as own_group
                    where own_group.shape_id = shape.shape_id
                        and own_group.tenant_id = asked_tenant
                        and own_group.digest = md5(found.group_values::text)
                ) then found.group_values
                else shape.others
            end,
            found.at, found.event_id, found.refund, found.amount, found.part_key
        from (
            select
                case cardinality(rule.names)
                    when 0 then '[]'::jsonb
                    when 1 then jsonb_build_array(tallygate.event_field(event, rule.names[1]))
                    when 2 then jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2])
                    )
                    when 3 then jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2]),
                        tallygate.event_field(event, rule.names[3])
                    )
                    else jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2]),
                        tallygate.event_field(event, rule.names[3]),
                        tallygate.event_field(event, rule.names[4])
                    )
                end as group_values,
                event.event_time as at,
                case when event.refund_of = '' then event.event_id else event.refund_of end
                    as event_id,
                event.refund_of <> '' as refund,
                event.amount,
                case rule.aggregation
                    when 'unique' then nullif(tallygate.event_field(event, rule.unique_by), '')
                    when 'percentile'
                        then case when event.refund_of = ''
                            then tallygate.sketch_slot(event.amount) end
                end as part_key
            from tallygate.usage_event as event
            cross join (
                select definition ->> 'aggregation' as aggregation,
                    definition ->> 'unique_by' as unique_by,
                    array(select jsonb_array_elements_text(definition -> 'group_by')) as names
            ) as rule
            where not alone and start_us is not null
                and event.tenant_id = asked_tenant and event.meter = asked_meter
                and event.event_time >= tallygate.instant(start_us)
                and event.event_time < tallygate.instant(end_us)
                and not exists (
                    select from tallygate.late_event as late
                    where late.tenant_id = event.tenant_id and late.event_id = event.event_id
                        and not case
                            when late.allocated_start = late.closed_start
                                then late.allocated_revision <= own
                            else late.allocated_start
                                <= coalesce(tallygate.instant(until_us), '-infinity')
                        end
                )
            union all
            select
                case cardinality(rule.names)
                    when 0 then '[]'::jsonb
                    when 1 then jsonb_build_array(tallygate.event_field(event, rule.names[1]))
                    when 2 then jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2])
                    )
                    when 3 then jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2]),
                        tallygate.event_field(event, rule.names[3])
                    )
                    else jsonb_build_array(
                        tallygate.event_field(event, rule.names[1]),
                        tallygate.event_field(event, rule.names[2]),
                        tallygate.event_field(event, rule.names[3]),
                        tallygate.event_field(event, rule.names[4])
                    )
                end as group_values,
                event.event_time as at,
                case when event.refund_of = '' then event.event_id else event.refund_of end
                    as event_id,
                event.refund_of <> '' as refund,
                event.amount,
                case rule.aggregation
                    when 'unique' then nullif(tallygate.event_field(event, rule.unique_by), '')
                    when 'percentile'
                        then case when event.refund_of = ''
                            then tallygate.sketch_slot(event.amount) end
                end as part_key
            from tallygate.late_event as late
            join tallygate.usage_event as event
                on event.tenant_id = late.tenant_id and event.meter = late.meter
                and event.event_time = late.event_time and event.event_id = late.event_id
            cross join (
                select definition ->> 'aggregation' as aggregation,
                    definition ->> 'unique_by' as unique_by,
                    array(select jsonb_array_elements_text(definition -> 'group_by')) as names
            ) as rule
            where (alone or start_us is null)
                and late.tenant_id = asked_tenant and late.meter = asked_meter
                and late.closed_start is not distinct from tallygate.instant(start_us)
                and late.closed_start is distinct from late.allocated_start
                and late.allocated_start <= tallygate.instant(until_us)
                and (not alone or late.allocated_start = tallygate.instant(until_us))
        ) as found
        left join (
            select kept.shape_id, other.group_values as others
            from tallygate.rollup_shape as kept
            join tallygate.rollup_group as other
                on other.shape_id = kept.shape_id and other.tenant_id = asked_tenant
                and other.digest = md5(tallygate.other_group(definition -> 'group_by')::text)
            where kept.active and kept.meter = asked_meter and kept.definition = $3
                and jsonb_array_length($3 -> 'group_by') > 0
        ) as shape on true
    $$;
comment on function tallygate.folded_events is
    'The events of a meter that a period''s number is made of, each in the group that it is rolled'
    ' up in, and with its value or slot. Without a start, the period is all before the first.';

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

-- What waits for a revision or a period that is not sealed has been noted without it.
insert into tallygate.period_touched (tenant_id, start_at, meter)
select distinct late.tenant_id, coalesce(late.closed_start, '-infinity'::timestamptz), late.meter
from tallygate.late_event as late
join tallygate.billing_period as period
    on period.tenant_id = late.tenant_id and period.start_at = late.allocated_start
where period.revision < late.allocated_revision;
