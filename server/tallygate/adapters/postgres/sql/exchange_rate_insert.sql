-- Write rates of exchange, but for those that stand already.
insert into tallygate.exchange_rate (base, quote, valid_from, rate, source)
select given.base, given.quote, tallygate.instant(given.from_us), given.rate, given.source
from unnest($1::text[], $2::text[], $3::bigint[], $4::numeric[], $5::text[])
    with ordinality as given (base, quote, from_us, rate, source, place)
where not exists (
    select from (
        select rate, source from tallygate.exchange_rate as known
        where known.base = given.base and known.quote = given.quote
            and known.valid_from = tallygate.instant(given.from_us)
        order by number desc
        limit 1
    ) as newest
    where newest.rate = given.rate and newest.source = given.source
)
order by given.place
returning number
