"""What Envoy asks and tells, as metrics and as log lines.

Guarantees: no label takes a value that a client chooses; a reason is in the log at most once for
every thousand entries.
Refuses to know who calls: the class has the shape of observer protocols and imports none.
"""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from tallygate.domain.errors import TallygateError

DESCRIPTORS: Final = (
    *("ok", "over_limit", "refused", "shadowed", "passed", "unmatched", "failed"),
)
ENTRIES: Final = ("taken", "unmatched", "intermediate", "unreadable")
EVENTS: Final = ("recorded", "replayed", "denied", "rejected")
# Whoever sends what cannot be recorded sends a lot of it.
TOLD_EVERY: Final = 1_000

log = structlog.get_logger(__name__)


class EnvoyMetrics:
    """What concerns Envoy, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.descriptor_outcomes = Counter(
            "tallygate_envoy_descriptors_total",
            "Descriptors of Envoy's rate limit calls, by what came of them.",
            ("outcome",),
            registry=registry,
        )
        self.entry_outcomes = Counter(
            "tallygate_envoy_log_entries_total",
            "Entries of Envoy's access logs, by what was made of them.",
            ("outcome",),
            registry=registry,
        )
        self.event_outcomes = Counter(
            "tallygate_envoy_log_events_total",
            "Events made of entries of Envoy's access logs, by what came of them.",
            ("outcome",),
            registry=registry,
        )
        for counter, outcomes in (
            (self.descriptor_outcomes, DESCRIPTORS),
            (self.entry_outcomes, ENTRIES),
            (self.event_outcomes, EVENTS),
        ):
            for outcome in outcomes:
                counter.labels(outcome)
        self._rejected: dict[str, int] = {}

    def descriptors(self, outcome: str, count: int) -> None:
        """Count descriptors."""
        self.descriptor_outcomes.labels(outcome).inc(count)

    def log_entries(self, outcome: str, count: int) -> None:
        """Count entries."""
        self.entry_outcomes.labels(outcome).inc(count)

    def log_events(self, outcome: str, count: int) -> None:
        """Count events."""
        self.event_outcomes.labels(outcome).inc(count)

    def log_rejected(self, error: TallygateError) -> None:
        """Say why an entry was not recorded, the first time and then now and again."""
        seen = self._rejected.get(error.reason, 0)
        self._rejected[error.reason] = seen + 1
        if seen % TOLD_EVERY == 0:
            reason, field = error.reason, error.field
            log.warning("access_log_rejected", reason=reason, field=field, detail=error.message)
