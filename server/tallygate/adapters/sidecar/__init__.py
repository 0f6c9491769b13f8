"""A sidecar as its callers see it: over gRPC."""
