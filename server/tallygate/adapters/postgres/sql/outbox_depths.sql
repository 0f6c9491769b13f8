-- Count what awaits each destination, active or with something left, and date the oldest pending.
with waiting as (
    select
        delivery.destination,
        count(*) filter (where delivery.state = 'pending') as pending,
        count(*) filter (where delivery.state = 'parked') as parked,
        min(outbox.created_at) filter (where delivery.state = 'pending') as oldest
    from tallygate.delivery join tallygate.outbox on outbox.id = delivery.message_id
    where delivery.state <> 'delivered'
    group by delivery.destination
),
active as (
    select name from tallygate.destination where active
)
select
    coalesce(active.name, waiting.destination) as destination,
    coalesce(waiting.pending, 0) as pending,
    coalesce(waiting.parked, 0) as parked,
    coalesce((extract(epoch from waiting.oldest) * 1000000)::bigint, 0) as oldest_us
from active full join waiting on waiting.destination = active.name
order by 1
