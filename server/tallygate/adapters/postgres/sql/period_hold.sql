-- Note why periods are held, or with an empty reason that they are not; return those for which that
-- is news. Arrays run in parallel.
update tallygate.billing_period as period
set held = asked.held,
    held_at = case when asked.held = '' then null else tallygate.instant($4::bigint) end
from unnest($1::text[], $2::bigint[], $3::text[]) as asked (tenant_id, start_us, held)
where period.tenant_id = asked.tenant_id and period.start_at = tallygate.instant(asked.start_us)
    and period.state in ('grace', 'sealed') and period.held <> asked.held
returning period.tenant_id, tallygate.microseconds(period.start_at) as start_us,
    tallygate.microseconds(period.end_at) as end_us, period.state, period.revision, period.held,
    tallygate.microseconds(period.due_at) as due_us,
    tallygate.microseconds(period.held_at) as held_us
