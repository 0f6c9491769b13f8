-- End a legal hold, once; count what was ended by this.
with ended as (
    insert into tallygate.legal_hold_release (hold_id, reason, actor)
    select hold_id, $2::text, $3::text from tallygate.legal_hold where hold_id = $1::text
    on conflict do nothing
    returning 1
)
select
    (select count(*) from ended) as ended,
    exists (select from tallygate.legal_hold where hold_id = $1) as known
