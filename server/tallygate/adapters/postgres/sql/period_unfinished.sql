-- Read sealed revisions that are not closed yet and not held, the oldest first.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us, period.revision, period.cause,
    period.accept_missing, tallygate.microseconds(period.sealed_at) as sealed_us,
    coalesce(before.events, 0) as events_before, before.digest as digest_before
from tallygate.billing_period as period
left join tallygate.period_revision as before
    on before.tenant_id = period.tenant_id and before.start_at = period.start_at
    and before.revision = period.revision - 1
where period.state = 'sealed' and (period.held = '' or period.accept_missing)
order by period.sealed_at, period.tenant_id, period.start_at
limit $1
