"""Billing periods on a real Postgres, in virtual time."""
