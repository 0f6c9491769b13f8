-- Read the minutes of a stretch of a tenant's events that are not late, each with the hash over
-- them. `docs/periods.md` defines it. $4 are all meters of the tenant: by them, an index leads.
select tallygate.microseconds(date_trunc('minute', event_time)) as minute_us, meter,
    count(*) as events, count(*) filter (where refund_of = '') as count, sum(amount) as sum,
    coalesce(max(amount) filter (where refund_of = ''), 0) as max,
    coalesce(min(amount) filter (where refund_of = ''), 0) as min,
    sha256(string_agg(
        sha256(convert_to(
            event_id || E'\n' || amount || E'\n' || tallygate.microseconds(event_time) || E'\n'
                || refund_of || E'\n' || dimensions, 'UTF8'
        )),
        ''::bytea order by event_id
    )) as digest
from tallygate.usage_event as event
where tenant_id = $1 and meter = any($4::text[])
    and event_time >= tallygate.instant($2::bigint)
    and event_time < tallygate.instant($3::bigint)
    and not exists (
        select from tallygate.late_event as late
        where late.tenant_id = event.tenant_id and late.event_id = event.event_id
    )
group by date_trunc('minute', event_time), meter
order by minute_us, meter
