-- Note a report of errors once, and mark the sends that it names; return how many it found.
-- A key may be that of a call that carried many: these may have been taken, and go again alone. One
-- that took the place of another, as Stripe had an error under that, has a number after a point.
with noted as (
    insert into tallygate.stripe_report (event_id, destination, errors, joined)
    values ($1::text, $2::text, $3::integer, 0)
    on conflict do nothing
    returning event_id
),
named as (
    select key, code, reason
    from unnest($4::text[], $5::text[], $6::text[]) as named (key, code, reason), noted
),
own as (
    update tallygate.stripe_send as send
    set state = 'rejected', doubtful = false, code = named.code, reason = named.reason
    from named join tallygate.stripe_intent as intent
        on intent.idempotency_key = split_part(named.key, '.', 1)
        or intent.identifier = named.key
    where
        send.intent_id = intent.intent_id
        and send.destination = $2::text
        and send.state in ('sending', 'ambiguous', 'delivered')
    returning send.intent_id
),
shared as (
    update tallygate.stripe_send as send
    set
        state = 'ambiguous',
        doubtful = true,
        alone = true,
        code = named.code,
        reason = named.reason,
        due_at = tallygate.instant($7::bigint)
    from named
    where
        send.batch_key = named.key
        and send.batch_key <> ''
        and send.destination = $2::text
        and send.state = 'delivered'
        and not exists (select from own where own.intent_id = send.intent_id)
    returning send.intent_id, send.destination, send.customer, send.meter
),
lanes as (
    update tallygate.stripe_lane as lane
    set due_at = least(lane.due_at, tallygate.instant($7::bigint))
    from (select distinct destination, customer, meter from shared) as due
    where
        lane.destination = due.destination
        and lane.customer = due.customer
        and lane.meter = due.meter
)
select
    (select count(*) from noted) as noted,
    (select count(*) from own) as rejected,
    (select count(*) from shared) as opened
