-- Keep what was learned of series.
update tallygate.anomaly_series as series
set next_hour = asked.next_hour, state = asked.state
from unnest($1::text[], $2::text[], $3::bigint[], $4::jsonb[])
    as asked (tenant_id, meter, next_hour, state)
where series.tenant_id = asked.tenant_id and series.meter = asked.meter
