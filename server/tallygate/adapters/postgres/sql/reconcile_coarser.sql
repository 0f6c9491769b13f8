-- Add up, by meter, what coarser rollups and those of groups have of each period, composed as usage
-- is read: of days, of hours beside them, of minutes at the edges; asks run in parallel arrays.
with ask as (
    select number, tenant_id, starts, ends,
        date_trunc('hour', starts + interval '59 minutes 59.999999 seconds', 'UTC') as hours_from,
        date_trunc('hour', ends, 'UTC') as hours_to,
        date_trunc('day', starts + interval '23 hours 59 minutes 59.999999 seconds', 'UTC')
            as days_from,
        date_trunc('day', ends, 'UTC') as days_to
    from (
        select number, tenant_id, tallygate.instant(from_us) as starts,
            tallygate.instant(to_us) as ends
        from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[])
            as ask (number, tenant_id, from_us, to_us)
    ) as ask
),
piece as materialized (
    select ask.number, ask.tenant_id, made.kind, made.level, made.starts, made.ends
    from ask
    cross join lateral (
        values
            ('minute', 0, ask.starts, ask.ends),
            ('hour', 0, ask.starts, ask.hours_from),
            ('hour', 1, ask.hours_from, ask.hours_to),
            ('hour', 0, ask.hours_to, ask.ends),
            ('day', 0, ask.starts, ask.hours_from),
            ('day', 1, ask.hours_from, ask.days_from),
            ('day', 2, ask.days_from, ask.days_to),
            ('day', 1, ask.days_to, ask.hours_to),
            ('day', 0, ask.hours_to, ask.ends)
    ) as made (kind, level, starts, ends)
    where made.starts < made.ends
        and (made.kind = 'minute' or ask.hours_from < ask.hours_to)
        and (made.kind <> 'day' or ask.days_from < ask.days_to)
),
-- Whatever was used has a row by day, so that meters are known without a look at every minute.
metered as materialized (
    select ask.number, ask.tenant_id, used.meter
    from ask
    cross join lateral (
        select distinct meter from tallygate.usage_day
        where tenant_id = ask.tenant_id
            and bucket >= date_trunc('day', ask.starts, 'UTC') and bucket < ask.ends
    ) as used
),
grouped as materialized (
    select metered.number, metered.meter, own.group_id
    from metered
    join tallygate.rollup_shape as shape
        on shape.meter = metered.meter and shape.active and shape.definition is not null
        and shape.complete = '{(,)}'::tstzmultirange
    left join tallygate.rollup_group as own
        on own.shape_id = shape.shape_id and own.tenant_id = metered.tenant_id
)
select metered.number, metered.meter, piece.kind,
    coalesce(sum(part.count), 0)::bigint as count, coalesce(sum(part.sum), 0) as sum,
    coalesce(max(part.max) filter (where part.count > 0), 0) as max,
    coalesce(min(part.min) filter (where part.count > 0), 0) as min
from metered
join piece on piece.number = metered.number and piece.kind <> 'minute'
left join lateral (
    select count, sum, max, min from tallygate.usage_minute
    where piece.level = 0 and tenant_id = metered.tenant_id and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
    union all
    select count, sum, max, min from tallygate.usage_hour
    where piece.level = 1 and tenant_id = metered.tenant_id and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
    union all
    select count, sum, max, min from tallygate.usage_day
    where piece.level = 2 and tenant_id = metered.tenant_id and meter = metered.meter
        and bucket >= piece.starts and bucket < piece.ends
) as part on true
group by metered.number, metered.meter, piece.kind
union all
select grouped.number, grouped.meter, 'groups by ' || piece.kind,
    coalesce(sum(part.count), 0)::bigint, coalesce(sum(part.sum), 0),
    coalesce(max(part.max) filter (where part.count > 0), 0),
    coalesce(min(part.min) filter (where part.count > 0), 0)
from grouped
join piece on piece.number = grouped.number
left join tallygate.group_usage as part
    on part.group_id = grouped.group_id and part.level = piece.level
    and part.bucket >= piece.starts and part.bucket < piece.ends
group by grouped.number, grouped.meter, piece.kind
order by 1, 2, 3
