-- Count a range of messages by where they are on their way to a destination, for one replay.
select
    count(*) filter (where state = 'delivered' and not replayed) as delivered,
    count(*) filter (where state = 'parked' and not replayed) as parked,
    count(*) filter (where state is null and not replayed) as unsent,
    count(*) filter (where state = 'pending' and not replayed) as waiting,
    count(*) filter (where replayed) as replayed,
    exists (select from tallygate.destination where name = $1::text and active) as known
from (
    select delivery.state, replay.message_id is not null as replayed
    from tallygate.outbox as message
    left join tallygate.delivery
        on delivery.message_id = message.id and delivery.destination = $1
    left join tallygate.message_replay as replay
        on replay.replay_id = $2::text and replay.destination = $1
        and replay.message_id = message.id
    where message.created_at >= tallygate.instant($3::bigint)
        and message.created_at < tallygate.instant($4::bigint)
        and ($5::text = '' or message.type = $5)
) as message
