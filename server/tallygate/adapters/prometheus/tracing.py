"""What is told of spans.

Guarantees: as of all metrics; any thread may count.
Refuses to know: how spans are sent.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

DROPPED: Final = ("rate", "queue", "export", "drain")
"""More calls than are recorded in a second; no room; not taken by the collector; no time at the
end."""


class TracingMetrics:
    """The metrics of spans, and an observer of what sends them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._exported = Counter(
            "tallygate_spans_exported_total",
            "Spans that the collector has taken.",
            registry=registry,
        )
        dropped = Counter(
            "tallygate_spans_dropped_total",
            "Calls that were not recorded (rate), and spans that were lost, by why: queue, export,"
            " drain.",
            ("reason",),
            registry=registry,
        )
        self._dropped = {reason: dropped.labels(reason) for reason in DROPPED}
        self._queued = Gauge(
            "tallygate_span_queue_depth", "Spans that wait for the collector.", registry=registry
        )

    def exported(self, spans: int) -> None:
        """Count spans that were taken by the collector."""
        self._exported.inc(spans)

    def dropped(self, reason: str, spans: int) -> None:
        """Count spans that were not recorded or not sent."""
        self._dropped[reason].inc(spans)

    def show(self, depth: Callable[[], int]) -> None:
        """Show how many wait."""
        self._queued.set_function(depth)
