-- An index for whoever tails the outbox, and for seeing how far that is held back.

-- Writers wait while it is built: seconds for millions of messages.
create index outbox_tail on tallygate.outbox (xid, seq);
