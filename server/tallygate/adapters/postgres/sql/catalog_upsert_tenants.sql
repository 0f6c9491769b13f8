-- Write tenants as a version has them, and keep what it made of each.
with incoming as (
    select * from unnest($1::text[], $2::text[], $3::text[])
        as tenant (tenant_id, plan, definition)
),
kept as (
    insert into tallygate.tenant_history (tenant_id, version, plan, definition, effective_at)
    select tenant_id, $4, plan, definition::jsonb, tallygate.instant($5) from incoming
)
insert into tallygate.tenant as tenant (tenant_id, plan, definition, version)
select tenant_id, plan, definition::jsonb, $4 from incoming
on conflict (tenant_id) do update set
    plan = excluded.plan,
    definition = excluded.definition,
    version = excluded.version,
    updated_at = now()
