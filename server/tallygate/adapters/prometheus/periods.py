"""What closing billing periods tells of itself, as metrics and as log lines.

Guarantees: a period that is held is in the log once for each reason that is new to it, by the
number of periods that it holds; tenants are never labels.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = structlog.get_logger(__name__)

SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a tenant of a few events to one of tens of millions."""


class _Count(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def held(self) -> str | None: ...
    @property
    def periods(self) -> int: ...
    @property
    def held_since_us(self) -> int: ...


class PeriodMetrics:
    """Every metric of billing periods, on the registry that it is given, and what sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states = Gauge(
            "tallygate_periods", "Billing periods by state.", ("state",), registry=registry
        )
        self._held = Gauge(
            "tallygate_periods_held",
            "Billing periods that are not closed though their grace is over, by reason.",
            ("reason",),
            registry=registry,
        )
        self._held_age = Gauge(
            "tallygate_periods_held_age_seconds",
            "For how long the longest held billing period is held; 0 when none is.",
            registry=registry,
        )
        self._revisions = Counter(
            "tallygate_period_revisions_total",
            "Revisions of billing periods that were closed, by cause.",
            ("cause",),
            registry=registry,
        )
        self._seconds = Histogram(
            "tallygate_period_hash_seconds",
            "Time that hashing the events of a revision and closing it took.",
            buckets=SECONDS,
            registry=registry,
        )
        self._late = Counter(
            "tallygate_late_events_total",
            "Events stored after their billing period was sealed, by what placed them.",
            ("placed",),
            registry=registry,
        )
        self._told: Mapping[str, int] = {}

    def counted(self, states: Sequence[_Count], now_us: int) -> None:
        """Show how many periods are in each state, and log what is newly held."""
        found: dict[str, int] = dict.fromkeys(("open", "grace", "sealed", "closed"), 0)
        held: dict[str, int] = {}
        since_us = now_us
        for each in states:
            found[str(each.state)] += each.periods
            if each.held:
                held[str(each.held)] = held.get(str(each.held), 0) + each.periods
                since_us = min(since_us, each.held_since_us)
        for state, periods in found.items():
            self._states.labels(state).set(periods)
        for reason in {*self._told, *held}:
            self._held.labels(reason).set(held.get(reason, 0))
            if held.get(reason, 0) > self._told.get(reason, 0):
                log.error("periods_held", reason=reason, periods=held[reason])
        self._held_age.set((now_us - since_us) / 1e6)
        self._told = held

    def closed(self, cause: str, events: int, seconds: float) -> None:
        """Count a revision that was closed."""
        self._revisions.labels(cause).inc()
        self._seconds.observe(seconds)
        log.info("period_closed", cause=cause, events=events)

    def late(self, placed: Mapping[str, int]) -> None:
        """Count late events by what placed them."""
        for rule, events in placed.items():
            self._late.labels(rule).inc(events)
