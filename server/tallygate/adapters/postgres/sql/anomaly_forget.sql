-- Forget series that have had no usage for long, with their hours of the week.
with forgotten as (
    delete from tallygate.anomaly_series as series
    using unnest($1::text[], $2::text[]) as asked (tenant_id, meter)
    where series.tenant_id = asked.tenant_id and series.meter = asked.meter
    returning series.tenant_id, series.meter
)
delete from tallygate.anomaly_season as season
using forgotten
where season.tenant_id = forgotten.tenant_id and season.meter = forgotten.meter
