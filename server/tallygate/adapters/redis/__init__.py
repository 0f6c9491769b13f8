"""Redis: decisions by script, the usage stream, and the catalog as sidecars read it."""
