-- Give parked deliveries of a destination, all or one message's, their attempts anew; count them.
with again as (
    update tallygate.delivery
    set state = 'pending', attempt = 0, due_at = now(), finished_at = null
    where
        destination = $1::text
        and state = 'parked'
        and ($2::uuid is null or message_id = $2::uuid)
    returning 1
)
select count(*) from again
