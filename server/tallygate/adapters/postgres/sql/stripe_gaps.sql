-- Read the windows of a meter whose usage is not what is intended of them, as of one instant.
-- Usage is that of the coarsest rollup whose buckets no billing period divides, or of events where
-- dimensions count; only one of the four sources is read. What came late for a sealed period and is
-- billed by a later one counts there, in the window in which it came, and apart where $15 is false.
with cut as (
    select
        tenant_id,
        customer,
        tallygate.instant(period_start_us) as period_start,
        tallygate.instant(period_end_us) as period_end,
        tallygate.instant(from_us) as starts,
        tallygate.instant(to_us) as ends
    from unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
        as cut (tenant_id, customer, period_start_us, period_end_us, from_us, to_us)
),
-- Allocated is always later than used, so what is to be left out of a cut is among these as well.
late as materialized (
    select
        late.tenant_id,
        late.event_time,
        late.allocated_start,
        coalesce(late.closed_start, 'epoch'::timestamptz) as closed_start,
        coalesce(event.received_at, late.noted_at) as received_at,
        late.amount,
        case
            when cardinality($13::text[]) = 0 then '{}'
            else (
                select
                    jsonb_object_agg(asked.key, coalesce(event.dimensions ->> asked.name, 'none'))
                from unnest($13::text[], $14::text[]) as asked (key, name)
            )::text
        end as dimensions
    from (select tenant_id, min(period_start) as since from cut group by tenant_id) as of
    join tallygate.late_event as late
        on late.tenant_id = of.tenant_id and late.allocated_start >= of.since
    left join tallygate.usage_event as event
        on
            event.tenant_id = late.tenant_id
            and event.meter = late.meter
            and event.event_time = late.event_time
            and event.event_id = late.event_id
    where
        $18::bigint is not null
        and late.meter = $2::text
        and late.placed = 'next_period'
        and late.event_time >= tallygate.instant($18::bigint)
),
usage as (
    select
        cut.*, rollup.bucket, '{}' as dimensions, '-infinity'::timestamptz as closed_start,
        rollup.count, rollup.sum, rollup.max, rollup.min
    from cut join tallygate.usage_minute as rollup
        on
            rollup.tenant_id = cut.tenant_id
            and rollup.meter = $2::text
            and rollup.bucket >= cut.starts
            and rollup.bucket < cut.ends
    where $9::text = 'minute'
    union all
    select
        cut.*, rollup.bucket, '{}', '-infinity', rollup.count, rollup.sum, rollup.max, rollup.min
    from cut join tallygate.usage_hour as rollup
        on
            rollup.tenant_id = cut.tenant_id
            and rollup.meter = $2::text
            and rollup.bucket >= cut.starts
            and rollup.bucket < cut.ends
    where $9::text = 'hour'
    union all
    select
        cut.*, rollup.bucket, '{}', '-infinity', rollup.count, rollup.sum, rollup.max, rollup.min
    from cut join tallygate.usage_day as rollup
        on
            rollup.tenant_id = cut.tenant_id
            and rollup.meter = $2::text
            and rollup.bucket >= cut.starts
            and rollup.bucket < cut.ends
    where $9::text = 'day'
    union all
    select
        cut.*,
        event.event_time,
        (
            select jsonb_object_agg(asked.key, coalesce(event.dimensions ->> asked.name, 'none'))
            from unnest($13::text[], $14::text[]) as asked (key, name)
        )::text,
        '-infinity',
        (event.amount > 0)::integer,
        event.amount,
        event.amount,
        event.amount
    from cut join tallygate.usage_event as event
        on
            event.tenant_id = cut.tenant_id
            and event.meter = $2::text
            and event.event_time >= cut.starts
            and event.event_time < cut.ends
    where $9::text = 'event'
    union all
    select
        cut.*, late.event_time, late.dimensions, '-infinity', -(late.amount > 0)::integer,
        -late.amount, 0, 0
    from cut join late
        on
            late.tenant_id = cut.tenant_id
            and late.event_time >= cut.starts
            and late.event_time < cut.ends
    union all
    select
        cut.*, came.at, late.dimensions,
        case when $15::boolean then '-infinity' else late.closed_start end,
        (late.amount > 0)::integer, late.amount, 0, 0
    from cut
    join late
        on
            late.tenant_id = cut.tenant_id
            and late.allocated_start >= cut.period_start
            and late.allocated_start < cut.period_end
    cross join lateral (
        select
            greatest(
                late.allocated_start,
                least(late.received_at, cut.period_end - interval '1 microsecond')
            ) as at
    ) as came
    where came.at >= cut.starts and came.at < cut.ends
),
placed as (
    select
        *, date_bin($10::bigint * interval '1 microsecond', bucket, 'epoch'::timestamptz) as begun
    from usage
),
total as (
    select
        tenant_id,
        customer,
        dimensions collate "C" as dimensions,
        closed_start,
        period_start,
        period_end,
        greatest(begun, period_start) as window_start,
        least(begun + $10::bigint * interval '1 microsecond', period_end) as window_end,
        case $11::text
            when 'count' then sum(count)
            when 'sum' then sum(sum)
            when 'max' then coalesce(max(max) filter (where count > 0), 0)
            when 'min' then coalesce(min(min) filter (where count > 0), 0)
        end as quantity
    from placed
    group by tenant_id, customer, dimensions, closed_start, period_start, period_end, begun
    having
        least(begun + $10::bigint * interval '1 microsecond', period_end)
        <= tallygate.instant($12::bigint)
),
span as (
    select tenant_id, max(customer) as customer, min(starts) as starts, max(ends) as ends
    from cut
    group by tenant_id
),
intended as (
    select
        intent.tenant_id,
        span.customer,
        intent.dimensions,
        coalesce(intent.closed_start, '-infinity') as closed_start,
        min(intent.period_start) as period_start,
        min(intent.period_end) as period_end,
        intent.window_start,
        intent.window_end,
        max(intent.late_seq) as late_seq,
        max(intent.seq) as seq,
        case
            when $15::boolean
                then (
                    array_agg(intent.quantity order by intent.seq desc)
                    filter (where later.intent_id is null)
                )[1]
            else coalesce(sum(intent.quantity) filter (where later.intent_id is null), 0)
        end as quantity
    from span
    join tallygate.stripe_intent as intent
        on
            intent.tenant_id = span.tenant_id
            and intent.window_start >= span.starts
            and intent.window_start < span.ends
    left join tallygate.stripe_intent as later on later.replaces = intent.intent_id
    where
        intent.destination = $1::text
        and intent.meter = $2::text
        and intent.window_end <= tallygate.instant($12::bigint)
    group by
        intent.tenant_id, span.customer, intent.dimensions, intent.closed_start,
        intent.window_start, intent.window_end
),
numbered as (
    select tenant_id, dimensions, window_start, window_end, max(seq) as seq
    from intended
    group by tenant_id, dimensions, window_start, window_end
),
gap as (
    select
        coalesce(total.tenant_id, intended.tenant_id) as tenant_id,
        coalesce(total.customer, intended.customer) as customer,
        coalesce(total.dimensions, intended.dimensions) as dimensions,
        coalesce(total.closed_start, intended.closed_start) as closed_start,
        coalesce(total.period_start, intended.period_start) as period_start,
        coalesce(total.period_end, intended.period_end) as period_end,
        coalesce(total.window_start, intended.window_start) as window_start,
        coalesce(total.window_end, intended.window_end) as window_end,
        coalesce(total.quantity, 0) as quantity,
        coalesce(intended.quantity, 0) as intended,
        coalesce(intended.late_seq, 0) as late_seq
    from total full join intended
        on
            intended.tenant_id = total.tenant_id
            and intended.dimensions = total.dimensions
            and intended.closed_start = total.closed_start
            and intended.window_start = total.window_start
            and intended.window_end = total.window_end
    -- A total that was never told is told even if it is 0; what adds up is not.
    where
        (total.tenant_id is not null or not $15::boolean)
        and (
            coalesce(total.quantity, 0) <> coalesce(intended.quantity, 0)
            or ($15::boolean and intended.quantity is null)
        )
    order by 7, 1, 3, 4
    limit $17::integer
)
select
    gap.tenant_id,
    gap.customer,
    gap.dimensions,
    tallygate.microseconds(gap.period_start) as period_start_us,
    tallygate.microseconds(gap.period_end) as period_end_us,
    tallygate.microseconds(gap.window_start) as start_us,
    tallygate.microseconds(gap.window_end) as end_us,
    gap.quantity,
    gap.intended,
    -- Intents of a window have one numbering, whatever they are of: gaps come one after another.
    coalesce(numbered.seq, 0) - 1 + row_number() over (
        partition by gap.tenant_id, gap.dimensions, gap.window_start, gap.window_end
        order by gap.closed_start
    ) as seq,
    gap.late_seq,
    case
        when isfinite(gap.closed_start) then tallygate.microseconds(gap.closed_start)
    end as closed_start_us,
    (
        select intent.intent_id
        from tallygate.stripe_intent as intent
        join tallygate.stripe_send as send on send.intent_id = intent.intent_id
        where
            gap.quantity < gap.intended
            and intent.destination = $1::text
            and intent.meter = $2::text
            and intent.tenant_id = gap.tenant_id
            and intent.window_start = gap.window_start
            and intent.window_end = gap.window_end
            and intent.dimensions = gap.dimensions
            and coalesce(intent.closed_start, '-infinity') = gap.closed_start
            and intent.kind = 'delta'
            -- What an earlier customer was told stays there.
            and intent.customer = gap.customer
            and intent.quantity = gap.intended - gap.quantity
            and send.state = 'delivered'
            and send.first_attempt_at > tallygate.instant($16::bigint)
            and not exists (
                select from tallygate.stripe_intent as other
                where other.cancels = intent.intent_id or other.replaces = intent.intent_id
            )
        order by intent.seq desc
        limit 1
    ) as cancellable
from gap
left join numbered
    on
        numbered.tenant_id = gap.tenant_id
        and numbered.dimensions = gap.dimensions
        and numbered.window_start = gap.window_start
        and numbered.window_end = gap.window_end
order by gap.window_start, gap.tenant_id, gap.dimensions, gap.closed_start
