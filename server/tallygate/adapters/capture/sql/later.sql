-- Gives rows back that are to be told again, each after so many milliseconds; counts them.
with given as (
    update tallygate.captured as held
    set lease = null, due_at = clock_timestamp() + told.wait_ms * interval '1 millisecond'
    from unnest($1::bigint[], $2::bigint[]) as told (captured_id, wait_ms)
    where held.captured_id = told.captured_id and held.lease = $3::uuid
    returning 1
)
select count(*) from given
