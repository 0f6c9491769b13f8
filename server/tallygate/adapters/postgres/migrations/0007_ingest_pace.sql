-- Rollups added in one call, and autovacuum that keeps pace with a busy ledger.

create function tallygate.add_usage(
    tenants text[], meters text[], minutes bigint[],
    counts bigint[], sums numeric[], maxima bigint[], minima bigint[]
) returns void
    language plpgsql
    set search_path = pg_catalog
    as $$
begin
    insert into tallygate.usage_minute as rollup (tenant_id, meter, bucket, count, sum, max, min)
    select part.tenant_id, part.meter, tallygate.instant(part.bucket_us),
        part.count, part.sum, part.max, part.min
    from unnest(tenants, meters, minutes, counts, sums, maxima, minima)
        as part (tenant_id, meter, bucket_us, count, sum, max, min)
    order by part.tenant_id collate "C", part.meter collate "C", part.bucket_us
    on conflict (tenant_id, meter, bucket) do update set
        count = rollup.count + excluded.count,
        sum = rollup.sum + excluded.sum,
        -- Without an event but for refunds, there is no largest and no smallest: both stand as 0.
        max = case
            when rollup.count = 0 then excluded.max
            when excluded.count = 0 then rollup.max
            else greatest(rollup.max, excluded.max)
        end,
        min = case
            when rollup.count = 0 then excluded.min
            when excluded.count = 0 then rollup.min
            else least(rollup.min, excluded.min)
        end;

    -- A time before 1970 belongs to the hour that it lies in, so a remainder below 0 is one above.
    insert into tallygate.usage_hour as rollup (tenant_id, meter, bucket, count, sum, max, min)
    select whole.tenant_id, whole.meter, tallygate.instant(whole.bucket_us),
        whole.count, whole.sum, whole.max, whole.min
    from (
        select part.tenant_id collate "C" as tenant_id, part.meter collate "C" as meter,
            part.minute_us - ((part.minute_us % 3600000000) + 3600000000) % 3600000000
                as bucket_us,
            sum(part.count)::bigint as count, sum(part.sum) as sum,
            coalesce(max(part.max) filter (where part.count > 0), 0) as max,
            coalesce(min(part.min) filter (where part.count > 0), 0) as min
        from unnest(tenants, meters, minutes, counts, sums, maxima, minima)
            as part (tenant_id, meter, minute_us, count, sum, max, min)
        group by 1, 2, 3
    ) as whole
    order by whole.tenant_id, whole.meter, whole.bucket_us
    on conflict (tenant_id, meter, bucket) do update set
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
        end;

    insert into tallygate.usage_day as rollup (tenant_id, meter, bucket, count, sum, max, min)
    select whole.tenant_id, whole.meter, tallygate.instant(whole.bucket_us),
        whole.count, whole.sum, whole.max, whole.min
    from (
        select part.tenant_id collate "C" as tenant_id, part.meter collate "C" as meter,
            part.minute_us - ((part.minute_us % 86400000000) + 86400000000) % 86400000000
                as bucket_us,
            sum(part.count)::bigint as count, sum(part.sum) as sum,
            coalesce(max(part.max) filter (where part.count > 0), 0) as max,
            coalesce(min(part.min) filter (where part.count > 0), 0) as min
        from unnest(tenants, meters, minutes, counts, sums, maxima, minima)
            as part (tenant_id, meter, minute_us, count, sum, max, min)
        group by 1, 2, 3
    ) as whole
    order by whole.tenant_id, whole.meter, whole.bucket_us
    on conflict (tenant_id, meter, bucket) do update set
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
        end;
end
$$;
comment on function tallygate.add_usage is
    'Add usage by minute to all rollups, in the order of their keys: writers wait for each other,'
    ' not forever. One row per tenant, meter and minute.';

-- These locks keep nobody from reading or writing. Vacuum comes after each fiftieth of a table:
-- what is appended to is then frozen in small parts, and what is updated in place finds room.
alter table tallygate.usage_minute
    set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table tallygate.usage_hour
    set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table tallygate.usage_day
    set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

do $$
declare
    leaf regclass;
begin
    for leaf in
        select inhrelid::regclass from pg_inherits
        where inhparent in ('tallygate.event_key'::regclass, 'tallygate.usage_event'::regclass)
    loop
        execute format('alter table %s set (autovacuum_vacuum_insert_scale_factor = 0.02)', leaf);
    end loop;
end
$$;

-- Runs as its owner, so that the ingester needs no right to create tables. A month of which the
-- default partition holds events already is left to it: moving them would edit the ledger.
create or replace function tallygate.ensure_partitions(first_day date, last_day date)
    returns integer
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
    set timezone = 'UTC'
    as $$
declare
    month timestamptz := date_trunc('month', first_day::timestamptz);
    following timestamptz;
    leaf text;
    made integer := 0;
begin
    if last_day - first_day > 3660 then
        raise exception 'at most ten years of partitions at a time'
            using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtext('tallygate.ensure_partitions'));
    while month <= last_day::timestamptz loop
        following := month + interval '1 month';
        leaf := 'usage_event_' || to_char(month, 'YYYYMM');
        if to_regclass('tallygate.' || leaf) is null and not exists (
            select from tallygate.usage_event_default
            where event_time >= month and event_time < following
        ) then
            execute format(
                'create table tallygate.%I (like tallygate.usage_event including all)'
                ' with (autovacuum_vacuum_insert_scale_factor = 0.02)', leaf
            );
            execute format(
                'create trigger append_only_truncate before truncate on tallygate.%I'
                ' for each statement execute function tallygate.refuse_change()', leaf
            );
            -- Attaching locks the parent less than creating as a partition does.
            execute format(
                'alter table tallygate.usage_event attach partition tallygate.%I'
                ' for values from (%L) to (%L)', leaf, month, following
            );
            made := made + 1;
        end if;
        month := following;
    end loop;
    return made;
end
$$;
