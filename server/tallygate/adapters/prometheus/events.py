"""Events over HTTP, as metrics.

Guarantees: no figure says who sent, or whose usage it was. Refuses to know who tells it: the class
has the shape of an observer protocol and imports none.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

# From a call without events to one that waited for a sidecar.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class EventsMetrics:
    """Calls, and what they brought."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "tallygate_http_calls_total",
            "Calls that brought events over HTTP, by status.",
            ["status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tallygate_http_call_duration_seconds",
            "From such a call's arrival to its answer.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.events = Counter(
            "tallygate_http_events_total",
            "Usage of events over HTTP by outcome: recorded, replayed, refused or ignored.",
            ["outcome"],
            registry=registry,
        )

    def called(self, status: int, seconds: float) -> None:
        """Count a call."""
        self.calls.labels(str(status)).inc()
        self.seconds.observe(seconds)

    def taken(self, outcome: str, events: int) -> None:
        """Count what it brought."""
        self.events.labels(outcome).inc(events)
