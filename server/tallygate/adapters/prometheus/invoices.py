"""What issuing invoices tells of itself, as metrics and as log lines.

Guarantees: a period that is newly not invoiced is in the log once, by its reason; tenants are never
labels.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

log = structlog.get_logger(__name__)

REASONS: Final = ("drift", "exchange_rate", "too_large", "failed")


class _Count(Protocol):
    @property
    def held(self) -> object | None: ...
    @property
    def periods(self) -> int: ...
    @property
    def since_us(self) -> int: ...


class InvoiceMetrics:
    """Every metric of issued invoices, on the registry that it is given, and what sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._issued = Counter(
            "tallygate_invoices_issued_total",
            "Invoices of closed periods that were written: first ones, and later revisions.",
            ("kind",),
            registry=registry,
        )
        for kind in ("first", "revision"):
            self._issued.labels(kind)
        self._due = Gauge(
            "tallygate_invoices_due", "Closed periods that are to be invoiced.", registry=registry
        )
        self._held = Gauge(
            "tallygate_invoices_held",
            "Of these, those that cannot be invoiced, by reason.",
            ("reason",),
            registry=registry,
        )
        for reason in REASONS:
            self._held.labels(reason)
        self._age = Gauge(
            "tallygate_invoices_held_age_seconds",
            "For how long the longest of them is held; 0 when none is.",
            registry=registry,
        )

    def issued(self, revision: int) -> None:
        """Count an invoice that was written."""
        self._issued.labels("first" if revision == 1 else "revision").inc()

    def withheld(self, reason: str) -> None:
        """Log that a period is newly not invoiced."""
        log.error("invoice_held", reason=str(reason))

    def counted(self, counts: Sequence[_Count], now_us: int) -> None:
        """Show how many periods are to be invoiced, and why some are not."""
        held = {str(each.held): each for each in counts if each.held is not None}
        self._due.set(sum(each.periods for each in counts))
        for reason in REASONS:
            self._held.labels(reason).set(held[reason].periods if reason in held else 0)
        since = [each.since_us for each in held.values()]
        self._age.set(max(0, now_us - min(since)) / 1e6 if since else 0)
