"""Dashboards and alerts, made from tables, and what holds them to a real Prometheus.

`python -m tests.watch` writes `helm/tallygate/files/`; the tests here say whether that is current.
"""
