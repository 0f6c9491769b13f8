-- Read which periods bill meters $3, whose totals are not frozen: they have usage of one, of $4
-- also a level from before, or late events of one that no totals know. $1, $2 run in parallel.
select period.tenant_id, tallygate.microseconds(period.start_at) as start_us
from unnest($1::text[], $2::bigint[]) as asked (tenant_id, start_us)
join tallygate.billing_period as period
    on period.tenant_id = asked.tenant_id
    and period.start_at = tallygate.instant(asked.start_us)
where (
    period.revision = 0 and exists (
        select from unnest($3::text[]) as metered (name)
        where exists (
            select from tallygate.usage_minute as used
            where used.tenant_id = period.tenant_id and used.meter = metered.name
                and used.bucket < period.end_at
                -- A bound and no alternative, so that the index gives only what lies within.
                and used.bucket >= case
                    when metered.name = any($4::text[]) then '-infinity'::timestamptz
                    else period.start_at
                end
        )
    )
) or exists (
    select from tallygate.late_event as late
    where late.tenant_id = period.tenant_id and late.allocated_start = period.start_at
        and late.allocated_revision = period.revision + 1 and late.meter = any($3)
        -- What was frozen is corrected by the aggregation that it had then.
        and not exists (
            select from tallygate.period_total as total
            where total.tenant_id = late.tenant_id and total.start_at = late.closed_start
                and total.meter = late.meter
        )
)
