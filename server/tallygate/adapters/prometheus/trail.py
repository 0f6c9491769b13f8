"""The audit log as metrics.

Guarantees: no figure says who asked.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

log = structlog.get_logger(__name__)


class TrailMetrics:
    """What the trail writes, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"tallygate_audit_{name}_total", text, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tallygate_audit_{name}", text, registry=registry)

        self.entries = counter("entries", "Rows that this process appended to the audit log.")
        self.appends = counter("appends", "Appends by which these were written.")
        self.refusals = counter("refused", "Calls refused, as too many waited for the audit log.")
        self.unwritten = counter("unrecorded", "Calls of which the log lacks what came of them.")
        self.queue = gauge("waiting", "Entries that wait to be written.")
        self.head = gauge("head", "Number of the last row that this process appended.")

    def appended(self, entries: int, head: int) -> None:
        """Count rows, and show where the chain ends."""
        self.entries.inc(entries)
        self.appends.inc()
        self.head.set(head)

    def waiting(self, entries: int) -> None:
        """Show how many entries wait."""
        self.queue.set(entries)

    def refused(self) -> None:
        """Count a call that was refused."""
        self.refusals.inc()

    def unrecorded(self) -> None:
        """Count a call whose end is not in the log, and say so in a line."""
        self.unwritten.inc()
        log.error("audit_unrecorded")
