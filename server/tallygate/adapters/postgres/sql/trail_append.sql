-- Append entries to the audit log, in the order of the columns' places; return the last's number.
select tallygate.append_audit(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]
)
