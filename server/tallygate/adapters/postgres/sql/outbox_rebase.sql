-- Put the messages of another cluster before all of this one's; return how many.
-- Nothing happens where no message is numbered beyond this cluster's own transactions.
with foreign_ones as (
    select from tallygate.outbox
    where xid >= pg_snapshot_xmax(pg_current_snapshot())
    limit 1
),
moved as (
    update tallygate.outbox
    set xid = '0'
    from foreign_ones
    where outbox.xid <> '0'
    returning 1
)
select count(*) from moved
