"""The behavioural fake of Stripe, driven through Stripe's own client."""
