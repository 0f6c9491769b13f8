-- Add up what a run found off where it began, too many and too few together, by step.
select drift ->> 'step' as step, sum(abs((drift ->> 'units')::numeric)) as units
from tallygate.reconciliation, jsonb_array_elements(repairs) as drift
where run_id = $1::text and drift ->> 'follows' is null
group by 1
