"""Traces: from a caller's header to a webhook's, and to a collector."""
