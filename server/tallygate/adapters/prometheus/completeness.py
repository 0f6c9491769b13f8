"""Completeness as metrics, and as a log line when something is missing.

Guarantees: what is missing is logged once for each set of numbers that is, with the numbers.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from tallygate.domain.completeness import Identity, Lane, Ranges

log = structlog.get_logger(__name__)

# Ranges and lanes that a log line names; the metric counts them all.
NAMED_MAX: Final = 20


class CompletenessMetrics:
    """The identity's terms, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tallygate_completeness_{name}", text, registry=registry)

        self.accepted = gauge("accepted", "Sequence numbers that were ever given out.")
        self.persisted = gauge("persisted", "Of these, those that the ledger has settled.")
        self.dead_letters = gauge("dead_letters", "Of these, those kept as dead letters.")
        self.in_stream = gauge("in_stream", "Of these, those that wait in a stream.")
        self.awaited = gauge("awaited", "Of these, those of lost epochs that journals may have.")
        self.lost = gauge("lost", "Of these, those of lost epochs that no journal had.")
        self.unaccounted = gauge("unaccounted", "Of these, those that are nowhere: a fault.")
        self.age = gauge("age_seconds", "How long ago all numbers were compared.")
        self._told: Mapping[Lane, Ranges] = {}

    def counted(self, found: Identity) -> None:
        """Show the terms, and log what is missing anew."""
        self.accepted.set(found.accepted)
        self.persisted.set(found.persisted)
        self.dead_letters.set(found.dead_letters)
        self.in_stream.set(found.in_stream)
        self.awaited.set(found.awaited)
        self.lost.set(found.lost)
        self.unaccounted.set(found.unaccounted)
        if found.missing != self._told:
            self._told = found.missing
            if found.missing:
                log.error(
                    "events_missing",
                    unaccounted=found.unaccounted,
                    lost=found.lost,
                    numbers=_numbers(found.missing),
                )
            else:
                log.info("events_complete")

    def aged(self, seconds: float) -> None:
        """Show how old the comparison is."""
        self.age.set(seconds)


def _numbers(missing: Mapping[Lane, Ranges]) -> list[str]:
    named = [
        f"{source}/{shard}: {start}-{end}"
        for (source, shard), ranges in sorted(missing.items())
        for start, end in ranges
    ]
    return named[:NAMED_MAX]
