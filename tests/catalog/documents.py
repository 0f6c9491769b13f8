"""Builders of catalog documents for tests."""

from tallygate.adapters.catalog.document import parse
from tallygate.domain.errors import CatalogInvalid, Fault

GOOD = """\
version: 1
default_plan: free
meters:
  requests: {aggregation: count, unit: request}
  egress_bytes: {aggregation: sum, unit: byte, late_horizon: 12h}
plans:
  free:
    limits:
      - {id: per-minute, meter: requests, kind: rate, period: minute, limit: 60, burst: 20}
      - {id: egress, meter: egress_bytes, kind: window, period: billing_period, limit: 5_000}
  pro:
    description: >
      For those
      who pay.
    limits:
      - id: egress
        meter: egress_bytes
        kind: window
        period: month
        limit: 9007199254740991
        on_exceed: allow
        warn_at: [0.8, 0.95, 1]
tenants:
  org: {plan: pro}
  acme:
    plan: pro
    anchor: 2024-01-31
    time_zone: Europe/Berlin
    currency: EUR
    stripe_customer_id: cus_x
    parent: org
    overrides:
      egress: {limit: 0}
  "10.0.0.1": {plan: free}
destinations:
  hooks:
    kind: webhook
    url: https://example.com/hooks
    types: [usage.batch]
    secret: {env: HOOKS_SECRET}
"""


def changed(old: str, new: str) -> str:
    """Return the good document with one part replaced, which must be there once."""
    assert GOOD.count(old) == 1, f"{GOOD.count(old)} times: {old!r}"
    return GOOD.replace(old, new)


def faults(text: str) -> tuple[Fault, ...]:
    """Return the faults of a document, none for a good one."""
    try:
        parse(text)
    except CatalogInvalid as error:
        return error.faults
    return ()
