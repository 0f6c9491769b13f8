-- Give a destination some messages of a range again, once for each replay, after a place.
-- What is on its way is noted as well: it is no part of this replay when it has arrived.
with due as (
    select message.id, message.xid, message.seq, coalesce(delivery.state, '') as state
    from tallygate.outbox as message
    left join tallygate.delivery
        on delivery.message_id = message.id and delivery.destination = $1::text
    where message.created_at >= tallygate.instant($3::bigint)
        and message.created_at < tallygate.instant($4::bigint)
        and ($5::text = '' or message.type = $5)
        and ($6::text is null or (message.xid, message.seq) > ($6::text::xid8, $7::bigint))
    order by message.xid, message.seq
    limit $8::integer
),
noted as (
    insert into tallygate.message_replay (replay_id, destination, message_id, state_before)
    select $2::text, $1, id, state from due
    on conflict do nothing
    returning message_id, state_before
),
changed as (
    update tallygate.delivery
    set state = 'pending', attempt = 0, due_at = now(), lease_token = null, leased_until = null,
        finished_at = null, reason = ''
    from noted
    where delivery.destination = $1 and delivery.message_id = noted.message_id
        and noted.state_before <> '' and delivery.state <> 'pending'
    returning 1
),
made as (
    insert into tallygate.delivery (message_id, destination)
    select message_id, $1 from noted where state_before = ''
    on conflict do nothing
    returning 1
)
select
    (select count(*) from due) as seen,
    (select count(*) from changed) + (select count(*) from made) as again,
    (select xid::text from due order by due.xid desc, due.seq desc limit 1) as last_xid,
    (select seq from due order by due.xid desc, due.seq desc limit 1) as last_seq
