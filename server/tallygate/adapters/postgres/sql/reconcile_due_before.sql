-- List newest revisions of periods, closed since $1, that were not reconciled since; those that
-- drifted or were unknown are due again after $2. A tenant's or everybody's.
select revision.tenant_id, tallygate.microseconds(revision.start_at) as start_us,
    tallygate.microseconds(revision.end_at) as end_us, revision.revision
from tallygate.period_revision as revision
join tallygate.billing_period as period
    on period.tenant_id = revision.tenant_id and period.start_at = revision.start_at
    and period.revision = revision.revision
where revision.closed_at >= tallygate.instant($1::bigint)
    and ($3::text is null or revision.tenant_id = $3)
    and not exists (
        select from tallygate.reconcile_invoicing as done
        where done.tenant_id = revision.tenant_id and done.period_start = revision.start_at
            and done.kind = 'before' and done.revision = revision.revision
            and (
                done.verdict not in ('drift', 'unknown')
                or done.reconciled_at > tallygate.instant($2::bigint)
            )
    )
order by revision.closed_at, revision.tenant_id, revision.start_at
limit $4::integer
