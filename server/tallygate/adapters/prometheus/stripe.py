"""Usage on its way to Stripe, as metrics and log lines.

Guarantees: what holds an account back, and what is left to people, is logged when it is new.
Refuses to know who calls: the class has the shape of observer protocols and imports none.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

log = structlog.get_logger(__name__)

REASONS: Final = ("throttled", "key_refused", "silent")
_LEFT: Final = ("rejected", "too_old")
OPEN: Final = ("pending", "sending", "ambiguous", *_LEFT)
"""States of sends that are not done."""


class _Depth(Protocol):
    """What waits in a state."""

    @property
    def destination(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def sends(self) -> int: ...
    @property
    def oldest_us(self) -> int: ...
    @property
    def late(self) -> int: ...


class StripeMetrics:
    """All of it, on the registry that it is given. Destinations are the catalog's: a few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(
                f"tallygate_stripe_{name}", text, ("destination", *labels), registry=registry
            )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(
                f"tallygate_stripe_{name}", text, ("destination", *labels), registry=registry
            )

        self.intents = counter("intents", "Intents written.", "kind")
        self.sends = counter("sends", "Attempts by what came of them.", "outcome")
        self.rate_wait = counter("rate_wait_seconds", "Time that sends waited for their turn.")
        self.stale = counter("stale", "Notes that came after another relay had taken over.")
        self.open = gauge("open", "Sends that are not done.", "state")
        self.oldest = gauge("oldest_seconds", "Age of the oldest usage that is not done.")
        self.late = gauge("late", "Sends not done whose usage is older than 30 days.")
        self.held_back = gauge("held_back", "1 while nothing is sent, for this reason.", "reason")
        self.reports = counter("reports", "Reports of errors by what was done.", "outcome")
        self.reported_errors = counter("reported_errors", "Errors that reports counted.")
        self.unnamed_errors = counter("unnamed_errors", "Of these, those that no send is known of.")
        self.unsendable_invoices = counter(
            "unsendable_invoices", "Issued invoices with an amount that Stripe has no unit for."
        )
        self._reasons: dict[str, str] = {}
        self._known: set[str] = set()
        self._left: dict[tuple[str, str], int] = {}

    def planned(self, destination: str, kind: str, count: int) -> None:
        """Count intents."""
        self.intents.labels(destination, kind).inc(count)

    def unsendable(self, destination: str, number: int, reason: str) -> None:
        """Count and log an invoice that cannot be told."""
        self.unsendable_invoices.labels(destination).inc()
        log.error("stripe_invoice_unsendable", destination=destination, number=number, cause=reason)

    def answered(self, destination: str, outcome: str, count: int) -> None:
        """Count attempts."""
        self.sends.labels(destination, outcome).inc(count)

    def waited(self, destination: str, seconds: float) -> None:
        """Add up what the rate costs."""
        self.rate_wait.labels(destination).inc(seconds)

    def held(self, destination: str, reason: str) -> None:
        """Show, and log once, that nothing goes out, or does again."""
        if self._reasons.get(destination, "") == reason:
            return
        self._reasons[destination] = reason
        for each in REASONS:
            self.held_back.labels(destination, each).set(each == reason)
        if reason:
            log.error("stripe_held_back", destination=destination, cause=reason)
        else:
            log.info("stripe_goes_on", destination=destination)

    def stale_notes(self, destination: str, count: int) -> None:
        """Count notes that were refused."""
        self.stale.labels(destination).inc(count)

    def reported(self, destination: str, outcome: str) -> None:
        """Count notices."""
        self.reports.labels(destination, outcome).inc()

    def errors(self, destination: str, codes: Mapping[str, int], unnamed: int) -> None:
        """Count and log what a report says."""
        self.reported_errors.labels(destination).inc(sum(codes.values()))
        self.unnamed_errors.labels(destination).inc(unnamed)
        log.error(
            "stripe_reported_errors", destination=destination, codes=dict(codes), unnamed=unnamed
        )

    def measured(self, depths: Sequence[_Depth], destinations: Sequence[str], now_us: int) -> None:
        """Show what is not done of each destination, and log what is newly left to people."""
        found = {(each.destination, str(each.state)): each.sends for each in depths}
        self._known |= {*destinations, *(each.destination for each in depths)}
        for destination in self._known:
            # Also where there is nothing: what has no series cannot be told from what is not asked.
            for state in OPEN:
                sends = found.get((destination, state), 0)
                self.open.labels(destination, state).set(sends)
                if state in _LEFT and sends > self._left.get((destination, state), 0):
                    log.error("stripe_left", destination=destination, state=state, sends=sends)
                self._left[destination, state] = sends
            own = [each for each in depths if each.destination == destination]
            oldest_us = min((each.oldest_us for each in own), default=now_us)
            self.oldest.labels(destination).set(max(0, now_us - oldest_us) / 1e6)
            self.late.labels(destination).set(sum(each.late for each in own))
