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

# Every kind of limit, and every way to narrow or to weigh one.
KINDS = """\
version: 1
meters:
  search: {}
  image: {}
  jobs: {aggregation: count}
  credits:
    weights:
      search: 5
      image: {by: sku, units: 10, values: {hd: 20, "4K ultra": 40}}
plans:
  all:
    limits:
      - {id: trailing, meter: search, kind: sliding, duration: 24h, limit: 500}
      - {id: at-once, meter: jobs, kind: concurrency, limit: 4, on_outage: allow}
      - {id: prepaid, meter: credits, kind: balance, overdraft: 50, low_at: [100, 10, 0]}
      - {id: boundless, meter: search, kind: window, period: quarter, limit: unlimited}
      - {id: rated, meter: search, kind: rate, period: second, limit: 5, burst: 9}
      - {id: per-user, meter: search, kind: window, period: year, limit: 10, per: user_id}
      - id: large
        meter: image
        kind: window
        period: day
        limit: 3
        where: {region: eu, model: [large, xl]}
        on_outage: local_budget(1_500)
        exact: true
tenants:
  org: {plan: all, suspended: true, fiscal_month: 4}
  acme:
    plan: all
    time_zone: Europe/Berlin
    parent: org
    overrides:
      trailing: {limit: 900, expires: 2027-01-01, reason: launch week}
      at-once: {limit: unlimited}
      rated: {limit: unlimited, expires: 2027-01-01T12:00:00Z}
"""


def changed(old: str, new: str, of: str = GOOD) -> str:
    """Return a good document with one part replaced, which must be there once."""
    assert of.count(old) == 1, f"{of.count(old)} times: {old!r}"
    return of.replace(old, new)


def faults(text: str) -> tuple[Fault, ...]:
    """Return the faults of a document, none for a good one."""
    try:
        parse(text)
    except CatalogInvalid as error:
        return error.faults
    return ()
