"""Benchmarks: ratios against a reference in the same run. They print a table and fail nothing."""
