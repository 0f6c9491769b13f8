-- Read for how many microseconds the oldest message has been held back from readers that tail.
-- Any transaction that writes, in whichever database of the cluster, holds back what came after it.
select coalesce(
    (
        select greatest(0, tallygate.microseconds(now()) - tallygate.microseconds(created_at))
        from tallygate.outbox
        where xid >= pg_snapshot_xmin(pg_current_snapshot())
        order by xid, seq
        limit 1
    ),
    0
)
