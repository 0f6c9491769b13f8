-- Where traces go on: from an event to its call, and from a message to the calls it tells of. The
-- column has no default, so that no row is written; its lock is held for a moment.

alter table tallygate.outbox
    add column trace_context bytea;
comment on column tallygate.outbox.trace_context is
    'Places in traces of the calls that it tells of, 25 bytes each, the first of them continued;'
    ' null where none was recorded.';

create table tallygate.event_trace (
    tenant_id text collate "C" not null,
    event_id text collate "C" not null,
    received_at timestamptz not null,
    trace_context bytea not null,
    primary key (tenant_id, event_id)
);
comment on table tallygate.event_trace is
    'Where calls were in traces that have brought events, of those that were recorded. No part of'
    ' the ledger: rows are forgotten with their traces, after a month.';
create index event_trace_received on tallygate.event_trace (received_at);
