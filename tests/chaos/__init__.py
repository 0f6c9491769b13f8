"""Harness P: real processes, real faults, and what must hold afterwards."""
