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

# Every model of a price, and every way to narrow, to discount or to round one.
PRICES = """\
version: 1
meters:
  calls: {aggregation: count}
  bytes: {}
  paid: {unit: cent}
  seats: {aggregation: max}
  cards: {weights: {bytes: 5}}
plans:
  all:
    limits:
      - {id: soft, meter: bytes, kind: window, period: billing_period, limit: 9, on_exceed: allow}
      - {id: hard, meter: bytes, kind: window, period: billing_period, limit: 9}
      - {id: prepaid, meter: bytes, kind: balance}
    prices:
      - {id: base, model: flat, amount: 49.90, pay: advance, discount: 12.5}
      - {id: calls, model: per_unit, meter: calls, amount: 0.002, included: 10_000}
      - {id: over, model: per_unit, meter: bytes, amount: 0.000000000001, above: soft}
      - id: packs
        model: package
        meter: bytes
        amount: 5
        size: 1_000
        minimum: 20
        discount: [{from: 5, percent: 10}, {percent: 1}]
      - id: graded
        model: graduated
        meter: bytes
        round_per: tier
        tiers: [{up_to: 10, amount: 1}, {up_to: 20, amount: 0.5, flat: 3}, {amount: 0.1}]
      - id: bulk
        model: volume
        meter: seats
        rounding: up
        tiers: [{up_to: 5, amount: 9}, {flat: 7}]
      - {id: share, model: percentage, meter: paid, percent: 2.9, currency: JPY, prorate: false}
      - {id: card, model: per_unit, meter: bytes, credits: 2.5, per: region, where: {tier: [a, b]}}
      - {id: steps, model: volume, meter: calls, tiers: [{up_to: 3, credits: 2}, {credits: 1}]}
    terms:
      currency: EUR
      minimum: 100
      discount: [{from: 1_000, percent: 5}]
      credit: {price: 0.01, balance: prepaid}
      exchange_at: period_start
      rounding: half_up
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
