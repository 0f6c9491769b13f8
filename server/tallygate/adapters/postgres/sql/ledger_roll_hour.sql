-- Add usage to the hour rollup. Rows come one per bucket and sorted, so that writers queue up.
insert into tallygate.usage_hour as rollup (tenant_id, meter, bucket, count, sum, max, min)
select tenant_id, meter, tallygate.instant(bucket_us), count, sum, max, min
from unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[], $7::bigint[]
) as usage (tenant_id, meter, bucket_us, count, sum, max, min)
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
    end
