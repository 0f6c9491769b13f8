"""Tracing by OpenTelemetry: spans over its API, and what sends them over its SDK."""
