-- What is captured, and how much of it waits or went wrong.
select
    capture_id,
    coalesce(relation::text, '(dropped)') as relation,
    meter,
    kind,
    events,
    waiting,
    unfolded,
    rejected,
    unmeasured::bigint as unmeasured,
    ended_at is not null as ended
from tallygate.captures
order by capture_id
