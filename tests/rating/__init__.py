"""Prices, rating and invoices, against a naive rater of their own."""
