-- Read the events of a bucket of $3 at an instant, by time and id, after a place.
select
    event_id, amount, operation_id, refund_of,
    tallygate.microseconds(event_time) as event_time_us,
    tallygate.microseconds(received_at) as received_at_us
from tallygate.usage_event
where tenant_id = $1::text and meter = $2::text
    and event_time >= date_trunc($3::text, tallygate.instant($4::bigint), 'UTC')
    and event_time
        < date_trunc($3, tallygate.instant($4), 'UTC') + ('1 ' || $3)::interval
    and ($5::bigint is null
        or (usage_event.event_time, event_id) > (tallygate.instant($5), $6::text))
order by usage_event.event_time, event_id
limit $7::integer
