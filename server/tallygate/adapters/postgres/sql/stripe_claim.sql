-- Lease the lanes of a destination that are due and free, and the first sends of each; the attempt
-- is counted before it is made, and one that was begun before and not ended is doubtful. What is
-- in doubt comes first.
with free as (
    select destination, customer, meter
    from tallygate.stripe_lane
    where
        destination = $1::text
        and due_at <= tallygate.instant($2::bigint)
        and quiet_until <= tallygate.instant($2::bigint)
        and (leased_until is null or leased_until <= now())
    order by due_at
    limit $3::integer
    for update skip locked
),
leased as (
    update tallygate.stripe_lane as lane
    set lease_token = $5::uuid, leased_until = now() + $6::bigint * interval '1 millisecond'
    from free
    where
        lane.destination = free.destination
        and lane.customer = free.customer
        and lane.meter = free.meter
    returning lane.destination, lane.customer, lane.meter
),
head as (
    select first.intent_id
    from leased cross join lateral (
        select waiting.intent_id
        from (
            (
                select 1 as rank, send.due_at, send.intent_id
                from tallygate.stripe_send as send
                where
                    send.destination = leased.destination
                    and send.customer = leased.customer
                    and send.meter = leased.meter
                    and send.state in ('sending', 'ambiguous')
                    and send.due_at <= tallygate.instant($2::bigint)
                order by send.due_at, send.intent_id
                limit $4::integer
            )
            union all
            (
                select 2, send.due_at, send.intent_id
                from tallygate.stripe_send as send
                where
                    send.destination = leased.destination
                    and send.customer = leased.customer
                    and send.meter = leased.meter
                    and send.state = 'pending'
                    and send.due_at <= tallygate.instant($2::bigint)
                order by send.due_at, send.intent_id
                limit $4::integer
            )
        ) as waiting
        order by waiting.rank, waiting.due_at, waiting.intent_id
        limit $4::integer
    ) as first
),
claimed as (
    update tallygate.stripe_send as send
    set
        state = 'sending',
        attempts = send.attempts + 1,
        doubtful = send.doubtful or send.state <> 'pending',
        first_attempt_at = coalesce(send.first_attempt_at, tallygate.instant($2::bigint)),
        last_attempt_at = tallygate.instant($2::bigint),
        lease_token = $5::uuid
    from head
    where send.intent_id = head.intent_id
    returning
        send.intent_id, send.attempts, send.doubtful, send.alone, send.first_attempt_at,
        send.code
)
select
    claimed.intent_id,
    claimed.attempts,
    claimed.doubtful,
    claimed.alone,
    claimed.code,
    tallygate.microseconds(claimed.first_attempt_at) as first_attempt_us,
    intent.destination,
    intent.tenant_id,
    intent.customer,
    intent.meter,
    intent.dimensions,
    tallygate.microseconds(intent.window_start) as start_us,
    tallygate.microseconds(intent.window_end) as end_us,
    tallygate.microseconds(intent.period_start) as period_start_us,
    tallygate.microseconds(intent.period_end) as period_end_us,
    intent.seq,
    intent.kind,
    intent.quantity,
    intent.value,
    intent.event_name,
    tallygate.microseconds(intent.sent_as_of) as timestamp_us,
    intent.identifier,
    intent.idempotency_key,
    intent.replaces,
    intent.cancels,
    intent.details,
    tallygate.microseconds(intent.closed_start) as closed_start_us,
    coalesce(cancelled.identifier, '') as cancelled,
    intent.kind in ('total', 'quantity') and exists (
        select from tallygate.stripe_intent as later
        where
            later.destination = intent.destination
            and later.meter = intent.meter
            and later.tenant_id = intent.tenant_id
            and later.dimensions = intent.dimensions
            and later.kind = intent.kind
            and (later.window_start, later.window_end, later.seq)
            > (intent.window_start, intent.window_end, intent.seq)
            and (intent.kind = 'quantity' or later.window_start = intent.window_start)
    ) as outdone
from claimed
join tallygate.stripe_intent as intent on intent.intent_id = claimed.intent_id
left join tallygate.stripe_intent as cancelled on cancelled.intent_id = intent.cancels
order by intent.customer, intent.meter, intent.intent_id
