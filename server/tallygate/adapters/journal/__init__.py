"""The journal on the sidecar's own disk: append-only segments, synced in groups."""
