"""Postgres: the ledger, the outbox, the catalog's versions, and their schema."""
