-- Hold intents of periods and their sends against usage, window by window; asks in parallel arrays.
with ask as (
    select place, tenant_id, meter, destination,
        tallygate.instant(from_us) as starts, tallygate.instant(to_us) as ends,
        tallygate.instant(first_us) as first_at, tallygate.instant(last_us) as last_at,
        tallygate.instant(since_us) as since, window_us * interval '1 microsecond' as length,
        tallygate.instant(settled_us) as settled, tallygate.instant(fresh_us) as fresh_at,
        counts, totals
    from unnest(
        $1::integer[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
        $13::boolean[], $14::boolean[]
    ) as ask (
        place, tenant_id, meter, destination, from_us, to_us,
        first_us, last_us, since_us, window_us, settled_us, fresh_us, counts, totals
    )
),
-- What came late for a sealed period and is billed by a later one: it counts where it is billed.
late as materialized (
    select late.tenant_id, late.meter, late.event_id, late.event_time, late.allocated_start,
        coalesce(late.closed_start, 'epoch'::timestamptz) as closed_start, late.amount,
        coalesce(event.received_at, late.noted_at) as received_at
    from (
        select tenant_id, meter, min(least(starts, first_at)) as since
        from ask group by tenant_id, meter
    ) as of
    join tallygate.late_event as late
        on late.tenant_id = of.tenant_id and late.meter = of.meter
        and late.allocated_start >= of.since
    left join tallygate.usage_event as event
        on event.tenant_id = late.tenant_id and event.meter = late.meter
        and event.event_time = late.event_time and event.event_id = late.event_id
    where late.placed = 'next_period'
),
event as (
    select ask.place,
        case when ask.counts then (event.amount > 0)::integer else event.amount end as units,
        event.event_time >= ask.starts and event.event_time < ask.ends as in_period,
        event.event_time >= ask.first_at and event.event_time < ask.last_at as in_windows,
        greatest(
            date_bin(ask.length, event.event_time, 'epoch'::timestamptz), ask.first_at
        ) as begun,
        event.received_at >= ask.fresh_at as fresh,
        late.event_id is not null and event.event_time >= ask.since as carried,
        '-infinity'::timestamptz as closed_start
    from ask join tallygate.usage_event as event
        on event.tenant_id = ask.tenant_id and event.meter = ask.meter
        and event.event_time >= least(ask.starts, ask.first_at)
        and event.event_time < greatest(ask.ends, ask.last_at)
    left join late on late.tenant_id = event.tenant_id and late.event_id = event.event_id
),
came as (
    select ask.place,
        case when ask.counts then (late.amount > 0)::integer else late.amount end as units,
        greatest(
            date_bin(
                ask.length,
                greatest(
                    late.allocated_start,
                    least(late.received_at, ask.last_at - interval '1 microsecond')
                ),
                'epoch'::timestamptz
            ),
            ask.first_at
        ) as begun,
        late.received_at >= ask.fresh_at as fresh,
        case when ask.totals then '-infinity' else late.closed_start end as closed_start
    from ask join late
        on late.tenant_id = ask.tenant_id and late.meter = ask.meter
        and late.allocated_start >= ask.first_at and late.allocated_start < ask.last_at
    where late.event_time >= ask.since
),
used as (
    select place, begun, closed_start, sum(units) as units, bool_or(fresh) as fresh
    from (
        select place, begun, closed_start, units, fresh
        from event where in_windows and not carried
        union all
        select place, begun, closed_start, units, fresh from came
    ) as counted
    group by place, begun, closed_start
),
-- What was replaced counts for nothing; of totals, all but the last of a window.
intent as (
    select ask.place, made.window_start as begun,
        coalesce(made.closed_start, '-infinity') as closed_start, made.quantity, made.customer,
        send.state,
        send.state in ('delivered', 'settled') as taken,
        send.doubtful or send.state in ('sending', 'ambiguous') as doubtful,
        -- As long as Stripe takes to sum up.
        send.last_attempt_at >= ask.fresh_at as fresh,
        ask.totals and made.seq < max(made.seq) over (
            partition by ask.place, made.window_start, made.window_end, made.dimensions,
                made.closed_start
        ) as outdone
    from ask
    join tallygate.stripe_intent as made
        on made.destination = ask.destination and made.tenant_id = ask.tenant_id
        and made.meter = ask.meter
        and made.window_start >= ask.first_at and made.window_start < ask.last_at
        and made.kind in ('delta', 'negative', 'cancel', 'total')
    join tallygate.stripe_send as send on send.intent_id = made.intent_id
    where not exists (
        select from tallygate.stripe_intent as later where later.replaces = made.intent_id
    )
),
intended as (
    select place, begun, closed_start, sum(quantity) as units
    from intent where not outdone group by place, begun, closed_start
),
windows as (
    select place, coalesce(intended.units, 0) as intended, coalesce(used.units, 0) as used,
        -- Of before it began to be told, and not told.
        intended.units is null and begun < ask.since as unasked,
        least(
            date_bin(ask.length, begun, 'epoch'::timestamptz) + ask.length, ask.last_at
        ) <= ask.settled and not coalesce(used.fresh, false) as settled
    from used full join intended using (place, begun, closed_start) join ask using (place)
),
told as (
    select place,
        coalesce(sum(quantity) filter (where taken), 0) as taken,
        coalesce(
            sum(quantity) filter (where state in ('pending', 'sending', 'ambiguous')), 0
        ) as waiting,
        coalesce(sum(quantity) filter (where state in ('rejected', 'too_old')), 0) as refused,
        coalesce(sum(quantity) filter (where state = 'shadow'), 0) as shadow,
        coalesce(sum(greatest(quantity, 0)) filter (where taken and fresh), 0)
        + coalesce(sum(greatest(-quantity, 0)) filter (where not taken and doubtful), 0) as lacks,
        coalesce(sum(greatest(-quantity, 0)) filter (where taken and fresh), 0)
        + coalesce(sum(greatest(quantity, 0)) filter (where not taken and doubtful), 0) as exceeds,
        array_agg(distinct customer) as customers
    from intent where not outdone group by place
)
select ask.place,
    coalesce(sums.intended, 0) as intended,
    coalesce(sums.due, 0) as due,
    coalesce(whole.units, 0) - coalesce(sums.told, 0) - coalesce(whole.carried, 0)
    + coalesce(arrived.units, 0) as aside,
    coalesce(whole.carried, 0) - coalesce(arrived.units, 0) as late,
    coalesce(told.taken, 0) as taken,
    coalesce(told.waiting, 0) as waiting,
    coalesce(told.refused, 0) as refused,
    coalesce(told.shadow, 0) as shadow,
    coalesce(told.lacks, 0) as lacks,
    coalesce(told.exceeds, 0) as exceeds,
    coalesce(told.customers, '{}') as customers,
    exists (
        select from tallygate.stripe_send as send
        join tallygate.stripe_intent as other on other.intent_id = send.intent_id
        where send.destination = ask.destination and send.meter = ask.meter
            and send.customer = any (told.customers)
            and other.tenant_id <> ask.tenant_id
            and other.window_start < ask.last_at and other.window_end > ask.first_at
    ) as shared
from ask
left join (
    select place, sum(intended) as intended,
        sum(case when settled then used else intended end) filter (where not unasked) as due,
        sum(used) filter (where not unasked) as told
    from windows group by place
) as sums using (place)
left join (
    select place,
        sum(units) filter (where in_period) as units,
        sum(units) filter (where in_period and carried) as carried
    from event group by place
) as whole using (place)
left join (select place, sum(units) as units from came group by place) as arrived using (place)
left join told using (place)
where sums.place is not null
order by ask.place
