-- Read the level before $3 of each series of a tenant's meter: what was set last, less its refunds.
-- Late events are left out that are billed by periods that begin after $7, or await a revision.
select last.series, last.amount + coalesce(
    (
        select sum(refund.amount) from tallygate.usage_event as refund
        where refund.tenant_id = $1 and refund.meter = $2
            and refund.event_time = last.event_time and refund.refund_of = last.event_id
            and (
                $7::bigint is null or not exists (
                    select from tallygate.late_usage as late
                    where late.tenant_id = $1 and late.event_id = refund.event_id
                        and (late.awaited or late.allocated_start > tallygate.instant($7))
                )
            )
    ), 0
) as level
from (
    select distinct on (named.series)
        named.series, event.event_id, event.event_time, event.amount
    from tallygate.usage_event as event
    cross join lateral (
        select array(
            select tallygate.value_of(event, asked.name)
            from unnest($5::text[]) with ordinality as asked (name, place)
            order by asked.place
        ) as series
    ) as named
    where event.tenant_id = $1 and event.meter = $2
        and event.event_time < tallygate.instant($3::bigint)
        and event.refund_of = ''
        and (
            $7::bigint is null or not exists (
                select from tallygate.late_usage as late
                where late.tenant_id = $1 and late.event_id = event.event_id
                    and (late.awaited or late.allocated_start > tallygate.instant($7))
            )
        )
        and not exists (
            select from jsonb_each($4::jsonb) as wanted (key, among)
            where not wanted.among ? tallygate.value_of(event, wanted.key)
        )
    order by named.series, event.event_time desc, event.event_id desc
    limit $6::integer
) as last
