"""What `tallygate capture run` tells of an app's outbox, as metrics.

Guarantees: no figure says whose usage it is. Refuses to know who tells it: the class has the shape
of an observer protocol and imports none.
"""

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from tallygate.domain.captured import CaptureBacklog


class _Counts(Protocol):
    @property
    def folded(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def replayed(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def later(self) -> int: ...


class CaptureMetrics:
    """An outbox, and what became of its rows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.rows = Counter(
            "tallygate_capture_rows_total",
            "Captured rows by outcome: accepted, replayed (had been accepted before), refused or"
            " later.",
            ["outcome"],
            registry=registry,
        )
        self.folded = Counter(
            "tallygate_capture_folded_total", "Changes of levels that were folded.",
            registry=registry,
        )  # fmt: skip
        self.waiting = self._gauge("waiting", "Captured rows that no sidecar has accepted yet.")
        self.unfolded = self._gauge("unfolded", "Changes of levels that are not folded yet.")
        self.oldest = self._gauge(
            "oldest_seconds", "Age of the oldest captured row that waits; 0 for none."
        )
        self.rejected = self._gauge("rejected", "Captured rows that were refused for good.")
        self.unmeasured = self._gauge(
            "unmeasured", "Rows that the app has written and that could not be measured."
        )
        for outcome in ("accepted", "replayed", "refused", "later"):
            self.rows.labels(outcome)

    def drained(self, counts: _Counts) -> None:
        """Count what a run did."""
        self.folded.inc(counts.folded)
        self.rows.labels("accepted").inc(counts.accepted - counts.replayed)
        self.rows.labels("replayed").inc(counts.replayed)
        self.rows.labels("refused").inc(counts.refused)
        self.rows.labels("later").inc(counts.later)

    def measured(self, backlog: CaptureBacklog) -> None:
        """Show what the outbox holds."""
        self.waiting.set(backlog.waiting)
        self.unfolded.set(backlog.unfolded)
        self.oldest.set(backlog.oldest_s)
        self.rejected.set(backlog.rejected)
        self.unmeasured.set(backlog.unmeasured)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"tallygate_capture_{name}", what, registry=self.registry)
