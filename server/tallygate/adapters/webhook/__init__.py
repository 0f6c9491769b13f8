"""Webhooks: messages sent over HTTP, signed after Standard Webhooks."""
