-- Add up a tenant's usage per meter and window: pieces of windows run in parallel arrays, by level.
with piece as materialized (
    select * from tallygate.pieces_of($3::integer[], $4::integer[], $5::bigint[], $6::bigint[])
),
-- Whatever was used has a row by day, so that meters are known without a look at every minute.
metered as materialized (
    select distinct meter from tallygate.usage_day
    where tenant_id = $1::text and ($2::text is null or meter = $2)
        and bucket >= (select date_trunc('day', min(starts), 'UTC') from piece)
        and bucket < (select max(ends) from piece)
)
select metered.meter, piece.number,
    sum(part.count)::bigint as count, sum(part.sum) as sum,
    coalesce(max(part.max) filter (where part.count > 0), 0) as max,
    coalesce(min(part.min) filter (where part.count > 0), 0) as min
from metered cross join piece cross join lateral (
    select count, sum, max, min from tallygate.usage_minute
    where piece.level = 0 and tenant_id = $1 and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
    union all
    select count, sum, max, min from tallygate.usage_hour
    where piece.level = 1 and tenant_id = $1 and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
    union all
    select count, sum, max, min from tallygate.usage_day
    where piece.level = 2 and tenant_id = $1 and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
) as part
group by metered.meter, piece.number
order by metered.meter, piece.number
