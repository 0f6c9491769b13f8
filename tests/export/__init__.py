"""Exports: rows out of the ledger into files, and back."""
