-- Read the anomalies of a tenant that were told, of one meter or all, by hour.
select meter, tallygate.microseconds(hour) as hour_us from tallygate.usage_anomaly
where tenant_id = $1::text and ($2::text is null or meter = $2)
    and hour >= tallygate.instant($3::bigint) and hour < tallygate.instant($4::bigint)
order by meter, hour
