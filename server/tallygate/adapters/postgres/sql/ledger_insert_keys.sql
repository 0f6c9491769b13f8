-- Enter the keys that are new. The first row says how many; where some of $5 were there already,
-- the new ones follow. Columns come as text, joined by $4, and sorted by key; text that is empty as
-- a whole is one empty value, which string_to_array takes for none. From here to the commit, no
-- meter changes its shape.
with fresh as (
    insert into tallygate.event_key (tenant_id, event_id, event_time)
    select tenant_id, event_id, tallygate.instant(event_time_us)
    from unnest(
        case when $1::text = '' then array[''] else string_to_array($1, $4::text) end,
        case when $2::text = '' then array[''] else string_to_array($2, $4) end,
        string_to_array($3::text, $4)::bigint[]
    ) as event (tenant_id, event_id, event_time_us)
    on conflict do nothing
    returning tenant_id, event_id
)
select count(*) as entered, '' as tenant_id, '' as event_id,
    pg_advisory_xact_lock_shared(1413825362, 0)::text as held
from fresh
union all
select 0, tenant_id, event_id, '' from fresh where (select count(*) from fresh) < $5::bigint
