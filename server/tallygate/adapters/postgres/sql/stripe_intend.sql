-- Write intents with their sends, and have their lanes looked at; return those that are new.
-- What another planner has written meanwhile, or under the same identity, is left as it is. A
-- number of 0 asks for the window's next.
with new as (
    insert into tallygate.stripe_intent (
        destination, tenant_id, customer, meter, dimensions, window_start, window_end,
        period_start, period_end, seq, kind, quantity, value, event_name, sent_as_of,
        identifier, idempotency_key, replaces, cancels, details, closed_start
    )
    select
        destination, tenant_id, customer, meter, dimensions, tallygate.instant(start_us),
        tallygate.instant(end_us), tallygate.instant(period_start_us),
        tallygate.instant(period_end_us),
        case
            when seq > 0 then seq
            else coalesce(
                (
                    select max(known.seq)
                    from tallygate.stripe_intent as known
                    where
                        known.destination = asked.destination
                        and known.meter = asked.meter
                        and known.tenant_id = asked.tenant_id
                        and known.window_start = tallygate.instant(asked.start_us)
                        and known.window_end = tallygate.instant(asked.end_us)
                        and known.dimensions = asked.dimensions
                        and known.closed_start
                        is not distinct from tallygate.instant(asked.closed_start_us)
                ),
                0
            ) + row_number() over (
                partition by
                    destination, meter, tenant_id, start_us, end_us, dimensions, closed_start_us,
                    seq
                order by identifier
            )
        end,
        kind, quantity, value, event_name,
        tallygate.instant(timestamp_us), identifier, idempotency_key, replaces, cancels, details,
        tallygate.instant(closed_start_us)
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
        $8::bigint[], $9::bigint[], $10::integer[], $11::text[], $12::numeric[], $13::text[],
        $14::text[], $15::bigint[], $16::text[], $17::text[], $18::bigint[], $19::bigint[],
        $20::jsonb[], $23::bigint[]
    ) as asked (
        destination, tenant_id, customer, meter, dimensions, start_us, end_us, period_start_us,
        period_end_us, seq, kind, quantity, value, event_name, timestamp_us, identifier,
        idempotency_key, replaces, cancels, details, closed_start_us
    )
    on conflict do nothing
    returning intent_id, destination, customer, meter, period_start, identifier
),
sends as (
    insert into tallygate.stripe_send
        (intent_id, destination, customer, meter, period_start, state, due_at)
    select
        intent_id, destination, customer, meter, period_start, $22::text,
        tallygate.instant($21::bigint)
    from new
),
lanes as (
    insert into tallygate.stripe_lane as lane (destination, customer, meter, due_at)
    select distinct destination, customer, meter, tallygate.instant($21::bigint)
    from new
    where $22::text = 'pending'
    order by destination, customer, meter
    on conflict (destination, customer, meter) do update
    set due_at = least(lane.due_at, excluded.due_at)
)
select identifier from new
