-- Have corrections that were applied, and first tried in the last so many seconds, be due again.
with again as (
    update tallygate.counter_correction
    set finished_at = null, outcome = ''
    where outcome = 'applied' and tried_at > now() - make_interval(secs => $1)
    returning 1
)
select count(*) from again
