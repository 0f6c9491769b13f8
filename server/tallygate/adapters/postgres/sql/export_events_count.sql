-- Count the events that an export covers.
select count(*) from tallygate.usage_event
where ($1::text is null or tenant_id = $1)
    and ($2::text is null or meter = $2)
    and ($3::bigint is null or event_time >= tallygate.instant($3))
    and ($4::bigint is null or event_time < tallygate.instant($4))
