-- Have periods that were sealed again be looked at once the next one is: of what was adjusted, part
-- is in their own totals now. Arrays run in parallel.
insert into tallygate.period_touched (tenant_id, start_at, meter)
select distinct late.tenant_id, late.allocated_start, late.meter
from unnest($1::text[], $2::bigint[], $3::integer[]) as asked (tenant_id, start_us, revision)
join tallygate.late_event as late
    on late.tenant_id = asked.tenant_id
    and late.allocated_start = tallygate.instant(asked.start_us)
    and late.allocated_revision = asked.revision
where asked.revision > 1
order by 1, 2, 3
on conflict do nothing
