-- Read the end of the audit log's chain.
select seq, hash from tallygate.audit_head
