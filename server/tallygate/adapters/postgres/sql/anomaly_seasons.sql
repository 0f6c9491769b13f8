-- Read what is known of the hours of the week of these series.
select season.tenant_id, season.meter, season.hour_of_week, season.state
from unnest($1::text[], $2::text[]) as asked (tenant_id, meter)
join tallygate.anomaly_season as season
    on season.tenant_id = asked.tenant_id and season.meter = asked.meter
