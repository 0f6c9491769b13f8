-- Read messages after a place, up to where an open transaction could still write before them.
select xid::text as xid, seq, id, type, payload
from tallygate.outbox
where
    (xid, seq) > ($1::text::xid8, $2::bigint)
    and xid < pg_snapshot_xmin(pg_current_snapshot())
-- Named in full: the xid of the answer is text, of which '999' comes after '1000'.
order by outbox.xid, outbox.seq
limit $3::integer
