-- Note events that came for sealed periods, and where each belongs; return how many by rule.
-- Arrays run in parallel; $7 is when the newest of them was received. `domain/period.py` has the
-- rules: `place`.
with asked as (
    select tenant_id, event_id, meter, amount, tallygate.instant(event_time_us) as event_time,
        refund_of
    from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
        as event (tenant_id, event_id, meter, amount, event_time_us, refund_of)
), correcting as materialized (
    select meter ->> 'name' as meter
    from (
        select snapshot from tallygate.catalog_version
        where effective_at <= greatest(now(), tallygate.instant($7::bigint))
        order by version desc limit 1
    ) as newest, jsonb_array_elements(newest.snapshot -> 'meters') as meter
    where meter ->> 'late_policy' = 'correct'
), found as (
    select asked.*, period.start_at, period.state, coalesce(period.revision, 0) as revision,
        following.start_at as next_start
    from asked
    left join lateral (
        select start_at, end_at, state, revision from tallygate.billing_period
        where tenant_id = asked.tenant_id and start_at <= asked.event_time
        order by start_at desc limit 1
    ) as period on true
    -- Whoever seals a period makes sure that there is one after it.
    left join lateral (
        select start_at from tallygate.billing_period
        where tenant_id = asked.tenant_id and revision = 0
        order by start_at limit 1
    ) as following on true
    where (period.revision > 0 and asked.event_time < period.end_at) or (
        period.start_at is null and exists (
            select from tallygate.billing_period
            where tenant_id = asked.tenant_id and revision > 0
        )
    )
), placed as (
    select found.*, case
        when start_at is not null and state = 'grace' then 'reopened'
        when start_at is not null and meter in (select meter from correcting) then 'correct'
        else 'next_period'
    end as placed
    from found
), noted as (
    insert into tallygate.late_event (
        tenant_id, event_id, meter, amount, event_time, refund_of, closed_start, closed_revision,
        placed, allocated_start, allocated_revision
    )
    select tenant_id, event_id, meter, amount, event_time, refund_of, start_at, revision, placed,
        case placed when 'next_period' then next_start else start_at end,
        case placed when 'next_period' then 1 else revision + 1 end
    from placed
    order by tenant_id collate "C", event_id collate "C"
    on conflict (tenant_id, event_id) do nothing
    returning tenant_id, placed, allocated_start, allocated_revision
), pending as (
    insert into tallygate.period_pending (tenant_id, start_at, revision)
    select distinct tenant_id, allocated_start, allocated_revision from noted
    where placed = 'correct'
    order by tenant_id, allocated_start, allocated_revision
    on conflict do nothing
)
select placed, count(*) as events from noted group by placed order by placed
