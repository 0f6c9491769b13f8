-- Count the pairs of a run by verdict.
select verdict, count(*) as pairs from tallygate.reconciliation
where run_id = $1::text
group by verdict
