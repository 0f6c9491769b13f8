-- Add usage to the day rollup. Rows come one per bucket and sorted, so that writers queue up.
insert into tallygate.usage_day as rollup (tenant_id, meter, bucket, count, sum, max, min)
select tenant_id, meter, tallygate.instant(bucket_us), count, sum, max, min
from unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[], $7::bigint[]
) as usage (tenant_id, meter, bucket_us, count, sum, max, min)
on conflict (tenant_id, meter, bucket) do update set
    count = rollup.count + excluded.count,
    sum = rollup.sum + excluded.sum,
    max = greatest(rollup.max, excluded.max),
    min = least(rollup.min, excluded.min)
