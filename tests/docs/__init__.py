"""Tests of the documentation: its code runs, its names exist, its links lead somewhere."""
