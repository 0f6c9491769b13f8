-- Bound this transaction's statements, and the pauses between them, by milliseconds as text.
select
    set_config('statement_timeout', $1::text, true),
    set_config('idle_in_transaction_session_timeout', $1::text, true)
