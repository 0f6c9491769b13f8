"""One month of fifty tenants, from events to invoices and to Stripe, on a clock of its own."""
