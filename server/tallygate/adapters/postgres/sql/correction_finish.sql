-- Mark corrections as finished, each with its outcome; say how many were not before. Arrays run in
-- parallel.
with finished as (
    update tallygate.counter_correction as correction
    set finished_at = now(), outcome = done.outcome
    from unnest($1::bigint[], $2::text[]) as done (id, outcome)
    where correction.id = done.id and correction.finished_at is null
    returning 1
)
select count(*) from finished
