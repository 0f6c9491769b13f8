-- Read rates of exchange, the newest first.
select base, quote, tallygate.microseconds(valid_from) as from_us, rate, source
from tallygate.exchange_rate
where ($1::text is null or base = $1) and ($2::text is null or quote = $2)
order by valid_from desc, number desc
limit $3
