-- Read the catalogs in effect from one instant up to another, with the plans $3 and the default.
select
    version,
    tallygate.microseconds(effective_at) as at_us,
    jsonb_set(snapshot, '{plans}', (
        select coalesce(jsonb_agg(plan.definition order by plan.place), '[]')
        from jsonb_array_elements(snapshot -> 'plans') with ordinality as plan (definition, place)
        where plan.definition ->> 'name' = any ($3::text[])
            or plan.definition ->> 'name' = snapshot ->> 'default_plan'
    ))::text as snapshot
from tallygate.catalog_version
where effective_at <= tallygate.instant($2::bigint)
    and version >= coalesce(
        (
            select max(version) from tallygate.catalog_version
            where effective_at <= tallygate.instant($1::bigint)
        ),
        0
    )
order by version
limit $4
