-- Count the series, and tell the first hour that one of them has yet to be looked at, or null.
select count(*) as series, min(next_hour) as next_hour from tallygate.anomaly_series
