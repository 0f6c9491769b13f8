-- Say whether events of a meter are in a period's rollups that its number is not made of: late ones
-- allocated to a revision after $4, or to another period that starts later than $5.
select exists (
    select from tallygate.late_event as late
    where late.tenant_id = $1 and late.meter = $2
        and late.closed_start = tallygate.instant($3::bigint)
        and not case
            when late.allocated_start = late.closed_start then late.allocated_revision <= $4
            else late.allocated_start <= coalesce(tallygate.instant($5::bigint), '-infinity')
        end
)
