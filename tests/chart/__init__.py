"""The chart: its values, what it renders, and what it refuses."""
