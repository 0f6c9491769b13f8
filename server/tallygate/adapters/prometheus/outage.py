"""What an outage's parts tell of themselves, as metrics and as a log line per change of state.

Guarantees: the log says when Redis stops being asked and when it is asked again, not for each call.
Refuses to know who calls: each class has the shape of an observer protocol and imports none.
"""

import logging
from enum import StrEnum
from typing import Final

import structlog

from tallygate.adapters.prometheus.metrics import Metrics

log = structlog.get_logger(__name__)

_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


class BreakerMetrics:
    """Shows the circuit's state, and counts what was given up."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._away = False

    def turned(self, state: StrEnum) -> None:
        """Show the state; log when Redis goes and when it is back."""
        self._metrics.breaker_state.set(_STATES[state])
        self._metrics.breaker_transitions[state.value].inc()
        if state == "open" and not self._away:
            self._away = True
            log.warning("redis_away", decided_by="the limits' on_outage rules")
        elif state == "closed":
            self._away = False
            log.info("redis_back")

    def hung(self, operations: int) -> None:
        """Count operations that waited too long."""
        self._metrics.breaker_hung.inc(operations)

    def granted_late(self, operations: int) -> None:
        """Count operations that were granted after they had been given up."""
        self._metrics.breaker_granted_late.inc(operations)


class OutageMetrics:
    """Counts what is decided without Redis, and what becomes of it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._full = False

    def degraded(self, action: str) -> None:
        """Count an operation that Redis did not decide."""
        self._metrics.degraded_decisions[action].inc()

    def resubmitted(self, outcome: str, operations: int) -> None:
        """Count operations that were handed over."""
        self._metrics.outage_resubmitted[outcome].inc(operations)

    def accepted(self, events: int) -> None:
        """Count events that are new in a stream."""
        self._metrics.events_accepted.inc(events)

    def streams_full(self, shards: int) -> None:
        """Show how many streams are full; log when the first is, and when none is any more."""
        if bool(shards) != self._full:
            self._full = bool(shards)
            log.log(logging.WARNING if shards else logging.INFO, "streams_full", shards=shards)
        self._metrics.streams_full.set(shards)

    def lost(self, operations: int) -> None:
        """Count and log operations that this process could not hand over."""
        self._metrics.outage_lost.inc(operations)
        log.error("outage_backlog_lost", operations=operations)
