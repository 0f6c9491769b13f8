-- Read one period; without a start, the newest that was sealed, else the newest.
select tenant_id, tallygate.microseconds(start_at) as start_us,
    tallygate.microseconds(end_at) as end_us, state, revision,
    tallygate.microseconds(due_at) as due_us, held, tallygate.microseconds(held_at) as held_us
from tallygate.billing_period
where tenant_id = $1 and ($2::bigint is null or start_at = tallygate.instant($2))
order by revision > 0 desc, start_at desc
limit 1
