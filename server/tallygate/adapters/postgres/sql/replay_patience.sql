-- Bound each statement of this transaction by so many milliseconds, as text.
select set_config('statement_timeout', $1::text, true)
