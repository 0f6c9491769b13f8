-- Find the burns that are not posted, by their places in the list.
select asked.place
from unnest($1::integer[], $2::text[], $3::integer[], $4::text[], $5::integer[])
    as asked (place, source_id, source_lane, entry_id, number)
where not exists (
    select from tallygate.credit_posting as posting
    where posting.kind = 'burn'
        and posting.source_id = asked.source_id
        and posting.source_lane = asked.source_lane
        and posting.entry_id = asked.entry_id
        and posting.number = asked.number
)
order by 1
