"""What the journal tells of itself, as metrics and as a log line per change of state.

Guarantees: the log says when the disk stops taking entries and when it takes them again, not for
each entry. Called by the loop and by the journal's own thread.
Refuses to know who calls: each class has the shape of an observer protocol and imports none.
"""

from collections.abc import Callable
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = structlog.get_logger(__name__)

SYNC_BUCKETS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
"""A good disk syncs in a tenth of a millisecond, one that spins in ten."""
STATES: Final = {"": 0, "full": 1, "broken": 2}


class Size(Protocol):
    """What the journal holds."""

    @property
    def events(self) -> int:
        """Events in a stream that are not confirmed."""

    @property
    def pending(self) -> int:
        """Operations that are nowhere else."""

    @property
    def held(self) -> int:
        """Reservations that are not over."""

    @property
    def size_bytes(self) -> int:
        """Size on disk."""

    @property
    def oldest_s(self) -> float:
        """For how long the oldest is unconfirmed."""

    @property
    def queued_bytes(self) -> int:
        """What is not synced yet."""


class JournalMetrics:
    """Every metric of the journal, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tallygate_journal_{name}", text, registry=registry)

        self.state = gauge(
            "state", "Whether the journal takes entries: 0 yes, 1 it is full, 2 the disk fails."
        )
        self.unconfirmed = gauge(
            "unconfirmed_events", "Events in a stream that the ledger has not confirmed."
        )
        self.pending = gauge(
            "pending_operations", "Operations granted without Redis: the journal alone has them."
        )
        self.held = gauge("held_reservations", "Reservations made here that are not over.")
        self.size_bytes = gauge("bytes", "Size of the journal on disk.")
        self.max_bytes = gauge("max_bytes", "Size that it may reach: TALLYGATE_JOURNAL_MAX_BYTES.")
        self.queued_bytes = gauge("queued_bytes", "What waits for the disk, about.")
        self.oldest = gauge(
            "oldest_seconds", "For how long the oldest entry is unconfirmed, at most."
        )
        self.sync = Histogram(
            "tallygate_journal_sync_seconds",
            "Time of one sync, which makes a group of entries durable.",
            buckets=SYNC_BUCKETS_S,
            registry=registry,
        )
        self.failures = Counter(
            "tallygate_journal_failures_total",
            "Writes or syncs that failed, by what the disk is: full or broken.",
            ("reason",),
            registry=registry,
        )
        self.damaged = Counter(
            "tallygate_journal_damaged_total",
            "Parts of segments that could not be read, by kind: corrupt, torn, head, undecoded.",
            ("kind",),
            registry=registry,
        )
        self.turned_away = Counter(
            "tallygate_journal_turned_away_total",
            "Entries that were not taken, by reason: full, broken, or queue.",
            ("reason",),
            registry=registry,
        )
        self.handed_in = Counter(
            "tallygate_journal_handed_in_total",
            "Operations handed in anew after a loss of counters, by outcome: counted, replayed,"
            " uncounted but recorded, conflict, or reserved.",
            ("outcome",),
            registry=registry,
        )

    def show(self, size: Callable[[], Size]) -> None:
        """Show what the journal holds, as it is when the metrics are read."""
        self.unconfirmed.set_function(lambda: size().events)
        self.pending.set_function(lambda: size().pending)
        self.held.set_function(lambda: size().held)
        self.size_bytes.set_function(lambda: size().size_bytes)
        self.queued_bytes.set_function(lambda: size().queued_bytes)
        self.oldest.set_function(lambda: size().oldest_s)


class JournalObserver:
    """Counts what becomes of the disk, and of what is handed in."""

    def __init__(self, metrics: JournalMetrics, accepted: Callable[[int], None]) -> None:
        self._metrics = metrics
        self._accepted = accepted

    def synced(self, seconds: float, entries: int) -> None:
        """Take in the time of a sync."""
        del entries
        self._metrics.sync.observe(seconds)

    def failed(self, reason: str) -> None:
        """Count a failure; show and log what the disk is."""
        self._metrics.failures.labels(reason).inc()
        self._metrics.state.set(STATES[reason])
        log.error("journal_failing", reason=reason, falls_back_to="Redis alone")

    def recovered(self) -> None:
        """Show and log that entries are taken again."""
        self._metrics.state.set(0)
        log.info("journal_recovered")

    def damaged(self, kind: str, spans: int) -> None:
        """Count what could not be read."""
        self._metrics.damaged.labels(kind).inc(spans)
        if kind != "torn":
            log.error("journal_damaged", kind=kind, spans=spans, kept_in="quarantine")

    def turned_away(self, reason: str, entries: int) -> None:
        """Count entries that were not taken."""
        self._metrics.turned_away.labels(reason).inc(entries)

    def handed_in(self, outcome: str, operations: int) -> None:
        """Count operations that were handed in."""
        if operations:
            self._metrics.handed_in.labels(outcome).inc(operations)

    def accepted(self, events: int) -> None:
        """Count events that are new in a stream."""
        self._accepted(events)
