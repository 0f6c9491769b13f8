-- Note drifts; return those that had not been noted, by their place in the arrays.
with asked as (
    select * from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::numeric[])
        with ordinality as row (tenant_id, meter, start_us, step, units, place)
),
noted as (
    insert into tallygate.reconcile_drift (run_id, tenant_id, meter, period_start, step, units)
    select $1::text, tenant_id, meter, tallygate.instant(start_us), step, units
    from asked
    order by tenant_id, meter, start_us, step, units
    on conflict do nothing
    returning tenant_id, meter, period_start, step, units
)
select min(asked.place)::integer as place
from noted
join asked on asked.tenant_id = noted.tenant_id and asked.meter = noted.meter
    and tallygate.instant(asked.start_us) = noted.period_start
    and asked.step = noted.step and asked.units = noted.units
group by noted.tenant_id, noted.meter, noted.period_start, noted.step, noted.units
order by 1
