-- Read what was frozen of a revision, by meter and group.
select meter, grouped, aggregation, count, sum, max, min, quantity,
    (state ->> 'carried')::bigint as carried
from tallygate.period_total
where tenant_id = $1 and start_at = tallygate.instant($2::bigint) and revision = $3
order by meter, grouped
