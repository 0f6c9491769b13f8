"""Tests of the flow over its ports."""
