-- The schema's second part, after `schema.sql`: usage by minute, hour and day, and how it is added.

-- Rows are updated in place: no index holds what changes, and each page has room. Vacuum comes
-- after each fiftieth, so that there is room again.
create table tallygate.usage_minute (
    tenant_id text collate "C" not null,
    meter text collate "C" not null,
    bucket timestamptz not null,
    count bigint not null,
    sum numeric not null,
    max bigint not null,
    min bigint not null,
    primary key (tenant_id, meter, bucket)
) with (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
create table tallygate.usage_hour (like tallygate.usage_minute including all)
    with (
        fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
    );
create table tallygate.usage_day (like tallygate.usage_minute including all)
    with (
        fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
    );
comment on table tallygate.usage_minute is 'Usage by minute of event_time, in UTC.';
comment on table tallygate.usage_hour is 'Usage by hour of event_time, in UTC.';
comment on table tallygate.usage_day is 'Usage by day of event_time, in UTC.';

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
