"""Tests of the journal: its segments, its disk, and what it makes of both."""
