-- Read which closed periods are to be corrected since at least so many seconds, without those that
-- wait for late events of meters $3, whose totals are not frozen.
select pending.tenant_id, tallygate.microseconds(pending.start_at) as start_us
from tallygate.period_pending as pending
join tallygate.billing_period as period
    on period.tenant_id = pending.tenant_id and period.start_at = pending.start_at
where pending.noted_at <= now() - make_interval(secs => $1) and period.state = 'closed'
    and pending.revision = period.revision + 1
    and not exists (
        select from tallygate.late_event as late
        where late.tenant_id = pending.tenant_id and late.allocated_start = pending.start_at
            and late.allocated_revision = pending.revision and late.meter = any($3::text[])
            and not exists (
                select from tallygate.period_total as total
                where total.tenant_id = late.tenant_id and total.start_at = late.closed_start
                    and total.meter = late.meter
            )
    )
order by pending.noted_at, pending.tenant_id, pending.start_at
limit $2
