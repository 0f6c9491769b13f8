-- Lock the series that have an hour to be looked at, those that are furthest behind first.
select tenant_id, meter, next_hour, state from tallygate.anomaly_series
where next_hour < $1::bigint
order by next_hour, tenant_id, meter
limit $2::integer
for update skip locked
