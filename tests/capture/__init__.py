"""Usage captured in an app's own Postgres: triggers, levels, and the drainer."""
