"""The edge over a real channel."""
