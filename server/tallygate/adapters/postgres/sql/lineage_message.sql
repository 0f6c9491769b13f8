-- Read a message, and of how many events it tells.
select
    id::text as message_id, type, aggregateid as about,
    tallygate.microseconds(created_at) as created_at_us,
    case when type = 'usage.batch' then
        jsonb_array_length(convert_from(payload, 'UTF8')::jsonb -> 'data' -> 'events')
        else 0
    end as events_count,
    trace_context
from tallygate.outbox
where id = $1::uuid
