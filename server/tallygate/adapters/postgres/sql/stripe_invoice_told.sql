-- Read what revisions of an invoice before this one have as items; what was replaced is none.
select
    made.details ->> 'line' as line,
    upper(made.details ->> 'currency') as currency,
    sum(made.quantity) as amount
from tallygate.stripe_intent as made
where
    made.destination = $1::text
    and made.tenant_id = $2::text
    and made.meter = any($3::text[])
    and made.kind = 'item'
    and made.details ->> 'invoice' = $4::text
    and (made.details ->> 'revision')::integer < $5::integer
    and not exists (
        select from tallygate.stripe_intent as later where later.replaces = made.intent_id
    )
group by 1, 2
