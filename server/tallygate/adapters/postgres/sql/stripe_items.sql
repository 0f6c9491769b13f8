-- Read which of these lines are intended as invoice items, by the first intent of each.
select intent.tenant_id, intent.dimensions, intent.identifier
from unnest($2::text[], $3::text[], $4::text[]) as line (tenant_id, meter, dimensions)
join tallygate.stripe_intent as intent
    on
        intent.destination = $1::text
        and intent.meter = line.meter
        and intent.tenant_id = line.tenant_id
        and intent.dimensions = line.dimensions
where intent.kind = 'item' and intent.seq = 1
