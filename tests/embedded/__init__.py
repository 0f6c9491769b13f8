"""The embedded servers: they start anywhere, keep what they hold, and die with their owner."""
