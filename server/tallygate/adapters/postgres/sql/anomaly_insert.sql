-- Note anomalies; return those that had not been noted, by their place in the arrays.
with asked as (
    select * from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::numeric[], $7::bigint[],
        $8::numeric[], $9::numeric[], $10::numeric[], $11::numeric[], $12::boolean[]
    ) with ordinality as row (
        tenant_id, meter, hour_us, direction, basis, used, events,
        expected, low, high, score, late, place
    )
),
noted as (
    insert into tallygate.usage_anomaly (
        tenant_id, meter, hour, direction, basis, used, events, expected, low, high, score, late
    )
    select tenant_id, meter, tallygate.instant(hour_us), direction, basis, used, events,
        expected, low, high, score, late
    from asked
    order by tenant_id, meter, hour_us, place
    on conflict do nothing
    returning tenant_id, meter, hour
)
select min(asked.place)::integer as place
from noted
join asked on asked.tenant_id = noted.tenant_id and asked.meter = noted.meter
    and tallygate.instant(asked.hour_us) = noted.hour
group by noted.tenant_id, noted.meter, noted.hour
order by 1
