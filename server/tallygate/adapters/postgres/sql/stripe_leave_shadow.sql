-- Have what was planned in shadow sent after all, from an instant of usage on; count it.
with shown as (
    update tallygate.stripe_send as send
    set state = 'pending', due_at = tallygate.instant($3::bigint)
    from tallygate.stripe_intent as intent
    where
        intent.intent_id = send.intent_id
        and send.destination = $1::text
        and send.state = 'shadow'
        and intent.window_start >= tallygate.instant($2::bigint)
    returning send.destination, send.customer, send.meter
),
lanes as (
    insert into tallygate.stripe_lane as lane (destination, customer, meter, due_at)
    select distinct destination, customer, meter, tallygate.instant($3::bigint)
    from shown
    order by destination, customer, meter
    on conflict (destination, customer, meter) do update
    set due_at = least(lane.due_at, excluded.due_at)
)
select count(*) from shown
