-- Add periods, open as yet, unless they are there; return how many are new. Arrays run in parallel.
with added as (
    insert into tallygate.billing_period (tenant_id, start_at, end_at, created_at)
    select tenant_id, tallygate.instant(start_us), tallygate.instant(end_us),
        tallygate.instant($4::bigint)
    from unnest($1::text[], $2::bigint[], $3::bigint[]) as span (tenant_id, start_us, end_us)
    order by tenant_id collate "C", start_us
    on conflict do nothing
    returning 1
)
select count(*) from added
