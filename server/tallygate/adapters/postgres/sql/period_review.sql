-- Settle what periods just sealed for the first time are to look at again: those for which events
-- came since the last one was, and for levels all after these. Arrays run in parallel.
with sealed as (
    select asked.tenant_id, tallygate.instant(asked.start_us) as start_at
    from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
    where asked.revision = 1
), touched as (
    delete from tallygate.period_touched as touched using sealed
    where touched.tenant_id = sealed.tenant_id
    returning sealed.tenant_id, sealed.start_at, touched.start_at as closed_start, touched.meter
), changed as (
    select * from touched
    union
    select late.tenant_id, late.allocated_start, coalesce(late.closed_start, '-infinity'),
        late.meter
    from sealed
    join tallygate.late_event as late
        on late.tenant_id = sealed.tenant_id and late.allocated_start = sealed.start_at
        and late.allocated_revision = 1
    where late.closed_start is distinct from late.allocated_start
)
insert into tallygate.period_review (tenant_id, start_at, closed_start, meter)
select distinct changed.tenant_id, changed.start_at, rule.start_at, rule.meter
from changed
join tallygate.period_rule as rule
    on rule.tenant_id = changed.tenant_id and rule.meter = changed.meter
    and rule.start_at < changed.start_at
    and (
        rule.start_at = changed.closed_start or (
            rule.start_at > changed.closed_start
            and rule.definition ->> 'aggregation' = 'time_weighted'
        )
    )
order by 1, 2, 3, 4
on conflict do nothing
