-- Read which closed periods are to be corrected since at least so many seconds.
select pending.tenant_id, tallygate.microseconds(pending.start_at) as start_us
from tallygate.period_pending as pending
join tallygate.billing_period as period
    on period.tenant_id = pending.tenant_id and period.start_at = pending.start_at
where pending.noted_at <= now() - make_interval(secs => $1) and period.state = 'closed'
    and pending.revision = period.revision + 1
order by pending.noted_at, pending.tenant_id, pending.start_at
limit $2
