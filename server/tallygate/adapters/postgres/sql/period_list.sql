-- Read periods by tenant and start, a page at a time.
select tenant_id, tallygate.microseconds(start_at) as start_us,
    tallygate.microseconds(end_at) as end_us, state, revision,
    tallygate.microseconds(due_at) as due_us, held, tallygate.microseconds(held_at) as held_us
from tallygate.billing_period
where ($1::text is null or tenant_id = $1)
    and (cardinality($2::text[]) = 0 or state = any($2))
    and (not $3::boolean or held <> '')
    and ($4::bigint is null or end_at > tallygate.instant($4))
    and ($5::bigint is null or start_at < tallygate.instant($5))
    and ($6::text is null or (tenant_id, start_at) > ($6, tallygate.instant($7::bigint)))
order by tenant_id, start_at
limit $8::integer
