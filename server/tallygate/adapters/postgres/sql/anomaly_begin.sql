-- Begin series, each with the first hour to be looked at; those that are known stay as they are.
insert into tallygate.anomaly_series (tenant_id, meter, next_hour, state)
select asked.tenant_id, asked.meter, asked.next_hour, asked.state
from unnest($1::text[], $2::text[], $3::bigint[], $4::jsonb[])
    as asked (tenant_id, meter, next_hour, state)
order by asked.tenant_id, asked.meter
on conflict do nothing
returning tenant_id
