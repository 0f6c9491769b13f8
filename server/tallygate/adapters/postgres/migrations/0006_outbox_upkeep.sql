-- An index for whoever tails the outbox, and a trace of what was pruned from it.

-- Writers wait while it is built: seconds for millions of messages.
create index outbox_tail on tallygate.outbox (xid, seq);

create table tallygate.outbox_pruned (
    one boolean primary key default true check (one),
    pruned_before timestamptz not null
);
comment on table tallygate.outbox_pruned is
    'Until when messages may be missing because they were delivered and pruned; one row or none.';
