-- Read the newest rate of each of several currencies in $1 at an instant of its own.
select asked.base, asked.at_us, found.rate
from unnest($2::text[], $3::bigint[]) as asked (base, at_us)
cross join lateral (
    select rate from tallygate.exchange_rate
    where base = asked.base and quote = $1 and valid_from <= tallygate.instant(asked.at_us)
    order by valid_from desc, number desc
    limit 1
) as found
