-- What the outbox holds.
select
    (select count(*) from tallygate.captured) as waiting,
    (select count(*) from tallygate.capture_delta) as unfolded,
    coalesce((
        select extract(epoch from clock_timestamp() - min(captured_at)) from tallygate.captured
    ), 0)::float8 as oldest_s,
    (select count(*) from tallygate.capture_rejected) as rejected,
    coalesce((select sum(row_count) from tallygate.capture_unmeasured), 0)::bigint as unmeasured
