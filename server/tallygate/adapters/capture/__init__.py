"""The outbox of captured usage in an app's own Postgres, and the SQL that makes it."""
