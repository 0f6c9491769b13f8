-- Read which periods bill late usage of the one of $2, and what it comes to on their invoices.
select tallygate.microseconds(late.allocated_start) as billed_us, late.events,
    coalesce(billed.number, 0) as number, coalesce(billed.revision, 0) as revision,
    coalesce(billed.currency, '') as currency, coalesce(billed.amount, 0) as amount
from (
    select allocated_start, count(*) as events from tallygate.late_event
    where tenant_id = $1 and closed_start = tallygate.instant($2::bigint)
        and allocated_start <> closed_start
    group by allocated_start
) as late
left join lateral (
    select newest.number, newest.revision, newest.currency, line.amount
    from (
        select number, revision, currency, lines from tallygate.invoice
        where tenant_id = $1 and period_start = late.allocated_start
        order by revision desc limit 1
    ) as newest
    cross join lateral (
        select sum((value ->> 'amount')::numeric) as amount
        from jsonb_array_elements(newest.lines) as line (value)
        where (value -> 'adjusts' ->> 'start_us')::bigint = $2
    ) as line
    where line.amount is not null
) as billed on true
order by late.allocated_start
