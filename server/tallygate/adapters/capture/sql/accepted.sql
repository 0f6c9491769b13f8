-- Deletes rows that were accepted, as far as they are still under their lease; counts them.
with gone as (
    delete from tallygate.captured
    where captured_id = any($1::bigint[]) and lease = $2::uuid
    returning 1
)
select count(*) from gone
