-- Keep what was learned of hours of the week.
insert into tallygate.anomaly_season (tenant_id, meter, hour_of_week, state)
select * from unnest($1::text[], $2::text[], $3::smallint[], $4::jsonb[])
on conflict (tenant_id, meter, hour_of_week) do update set state = excluded.state
