-- Read sealed revisions that are not closed yet and not held, the oldest first; a period that
-- adjusts others after these.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us, period.revision, period.cause,
    period.accept_missing, tallygate.microseconds(period.sealed_at) as sealed_us,
    coalesce(before.events, 0) as events_before, before.digest as digest_before
from tallygate.billing_period as period
left join tallygate.period_revision as before
    on before.tenant_id = period.tenant_id and before.start_at = period.start_at
    and before.revision = period.revision - 1
where period.state = 'sealed'
    -- What could not be folded may be by now, once rollups have been made anew.
    and (period.held in ('', 'meter_not_frozen') or period.accept_missing)
    -- By how much others would have been another is known once these are closed.
    and not (
        period.revision = 1
        and exists (
            select from tallygate.period_review as review
            where review.tenant_id = period.tenant_id and review.start_at = period.start_at
        )
        and exists (
            select from tallygate.billing_period as earlier
            where earlier.tenant_id = period.tenant_id and earlier.start_at < period.start_at
                and earlier.state = 'sealed'
        )
    )
order by period.sealed_at, period.tenant_id, period.start_at
limit $1
