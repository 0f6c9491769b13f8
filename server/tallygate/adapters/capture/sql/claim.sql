-- Leases rows that are due, written first first, the attempt counted.
-- The locking read stands in a CTE of its own: as a subquery it might be run again per row.
with due as (
    select captured_id from tallygate.captured
    where due_at <= clock_timestamp()
    order by captured_id
    limit $1::integer
    for update skip locked
),
leased as (
    update tallygate.captured as held
    set
        attempts = held.attempts + 1,
        lease = $2::uuid,
        due_at = clock_timestamp() + $3::bigint * interval '1 millisecond'
    from due
    where held.captured_id = due.captured_id
    returning held.*
)
select
    captured_id,
    event_id,
    tenant_id,
    meter,
    amount,
    (extract(epoch from captured_at) * 1000000)::bigint as captured_at_us,
    dimensions::text as dimensions,
    attempts
from leased
order by captured_id
