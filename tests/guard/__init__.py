"""Holds what a call costs, as counts that are the same on every machine."""
