-- Read the minutes of the late events that are allocated to a revision, as `period_leaves` does;
-- `own` are those that came for this period itself.
select tallygate.microseconds(date_trunc('minute', event.event_time)) as minute_us, event.meter,
    late.closed_start is not distinct from late.allocated_start as own,
    count(*) as events, count(*) filter (where event.refund_of = '') as count,
    sum(event.amount) as sum,
    coalesce(max(event.amount) filter (where event.refund_of = ''), 0) as max,
    coalesce(min(event.amount) filter (where event.refund_of = ''), 0) as min,
    sha256(string_agg(
        sha256(convert_to(
            event.event_id || E'\n' || event.amount || E'\n'
                || tallygate.microseconds(event.event_time) || E'\n' || event.refund_of || E'\n'
                || event.dimensions, 'UTF8'
        )),
        ''::bytea order by event.event_id
    )) as digest
from tallygate.late_event as late
join tallygate.usage_event as event
    on event.tenant_id = late.tenant_id and event.meter = late.meter
    and event.event_time = late.event_time and event.event_id = late.event_id
where late.tenant_id = $1 and late.allocated_start = tallygate.instant($2::bigint)
    and late.allocated_revision = $3
group by date_trunc('minute', event.event_time), event.meter, own
order by own desc, minute_us, event.meter
