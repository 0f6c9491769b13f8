"""Stripe, through its own client. Imported by wiring alone, and only where it is used."""
