-- Seal periods that are due, or that are to be corrected, where one follows and none before is
-- unsealed; return those. Arrays run in parallel.
with sealed as (
    update tallygate.billing_period as period
    set state = 'sealed', revision = period.revision + 1, held = '', held_at = null,
        sealed_at = tallygate.instant($3::bigint),
        cause = case when period.state = 'closed' then 'late_events' else period.cause end
    from unnest($1::text[], $2::bigint[]) as asked (tenant_id, start_us)
    where period.tenant_id = asked.tenant_id
        and period.start_at = tallygate.instant(asked.start_us)
        and (
            (period.state = 'grace' and period.due_at <= tallygate.instant($3))
            or (
                period.state = 'closed' and exists (
                    select from tallygate.period_pending as pending
                    where pending.tenant_id = period.tenant_id
                        and pending.start_at = period.start_at
                        and pending.revision = period.revision + 1
                )
            )
        )
        and not exists (
            select from tallygate.billing_period as earlier
            where earlier.tenant_id = period.tenant_id and earlier.start_at < period.start_at
                and earlier.revision = 0
        )
        and exists (
            select from tallygate.billing_period as later
            where later.tenant_id = period.tenant_id and later.start_at = period.end_at
        )
    returning period.tenant_id, period.start_at, period.end_at, period.revision
), settled as (
    delete from tallygate.period_pending as pending using sealed
    where pending.tenant_id = sealed.tenant_id and pending.start_at = sealed.start_at
        and pending.revision <= sealed.revision
), frontier as (
    insert into tallygate.period_frontier as known (sealed_until, accepted_lost)
    select max(end_at), $4::bigint from sealed having count(*) > 0
    on conflict (one) do update set
        sealed_until = greatest(known.sealed_until, excluded.sealed_until),
        accepted_lost = greatest(known.accepted_lost, excluded.accepted_lost)
)
select tenant_id, tallygate.microseconds(start_at) as start_us, revision from sealed
order by tenant_id, start_at
