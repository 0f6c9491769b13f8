"""The schema, its migrations and its queries."""
