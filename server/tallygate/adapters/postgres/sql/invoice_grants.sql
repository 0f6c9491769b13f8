-- Read a tenant's grants that are valid in a period, and what other periods' invoices left of them.
-- Where the period is worked out anew on the invoice of $6, that one's burns are left, and those
-- for the period on invoices before it.
with burned as (
    select
        line -> 'burn' ->> 'limit_id' as limit_id,
        (line -> 'burn' ->> 'seq')::bigint as seq,
        sum((line -> 'burn' ->> 'units')::numeric) as units
    from (
        select distinct on (period_start) period_start, lines from tallygate.invoice
        where tenant_id = $1
            and period_start <> tallygate.instant(coalesce($6::bigint, $2::bigint))
        order by period_start, revision desc
    ) as other
    cross join lateral jsonb_array_elements(other.lines) as line
    where line ? 'burn'
        and not (
            $6 is not null and other.period_start < tallygate.instant($6)
            and coalesce(
                tallygate.instant((line -> 'adjusts' ->> 'start_us')::bigint), other.period_start
            ) = tallygate.instant($2)
        )
    group by 1, 2
)
select
    credit.limit_id, credit.seq, credit.grant_id,
    greatest(0, credit.amount - coalesce(burned.units, 0)) as left_units,
    credit.priority,
    tallygate.microseconds(credit.starts_at) as starts_us,
    tallygate.microseconds(credit.expires_at) as expires_us
from tallygate.credit_grant as credit
left join burned using (limit_id, seq)
where credit.tenant_id = $1
    and credit.starts_at < tallygate.instant($3::bigint)
    and (credit.expires_at is null or credit.expires_at > tallygate.instant($2))
    and credit.limit_id = any ($4::text[])
    and credit.amount > coalesce(burned.units, 0)
order by credit.limit_id, credit.seq
limit $5
