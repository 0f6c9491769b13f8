"""Middleware of the Python client, each in its real framework, before a real sidecar."""
