-- Read how full a balance is: its grants neither used up nor expired, and their units.
select
    count(*) filter (where remaining > 0) as live,
    coalesce(sum(amount), 0)::numeric as units
from (
    select remaining, amount from tallygate.credit_remaining
    where tenant_id = $1 and limit_id = $2
        and (expires_at is null or expires_at > tallygate.instant($3))
    order by remaining > 0 desc, seq desc
    limit $4
) as kept
