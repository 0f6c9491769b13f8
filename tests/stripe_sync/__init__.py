"""Usage on its way to Stripe: planned, sent, settled."""
