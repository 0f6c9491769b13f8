-- Read periods whose grace is over and before which none is unsealed; and events of that time that
-- could not be stored, $3 being their reason.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us, period.state, period.revision,
    tallygate.microseconds(period.due_at) as due_us, period.held, period.accept_missing,
    tallygate.microseconds(period.held_at) as held_us,
    (
        select count(*) from tallygate.dead_letter as letter
        where letter.tenant_id = period.tenant_id and letter.reason = $3
            and letter.received_at >= period.start_at and letter.received_at < period.due_at
    ) as letters
from tallygate.billing_period as period
where period.state = 'grace' and period.due_at <= tallygate.instant($1::bigint)
    and not exists (
        select from tallygate.billing_period as earlier
        where earlier.tenant_id = period.tenant_id and earlier.start_at < period.start_at
            and earlier.revision = 0
    )
-- What is held is looked at again after all that is not.
order by period.held <> '', period.due_at, period.tenant_id
limit $2
