"""Puts watching together.

Guarantees: one `Watches` per process, bounded by its settings.
Refuses to know: who runs its loop.
"""

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import WatchMetrics
from tallygate.flow.watch import POLL_MS, Reads, Watches, WatchOptions, WatchParts
from tallygate.ports import Clock
from tallygate.settings import Settings

__all__ = ["POLL_MS", "watches_of"]


def watches_of(reads: Reads, settings: Settings, clock: Clock, metrics: Metrics) -> Watches:
    """Return the watches of a process that reads by `reads`."""
    options = WatchOptions(
        settings.watches_max, settings.watched_questions_max, settings.watch_stale_ms
    )
    return Watches(WatchParts(reads, clock, WatchMetrics(metrics)), options)
