"""What the flows tell of themselves, as metrics and as one log line per change of state.

Guarantees: a loop that keeps failing is logged when it begins to and when it has recovered, not at
each try; no payload is logged.
Refuses to know who calls: each class has the shape of an observer protocol and imports none.
"""

from typing import Protocol

import structlog

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.domain.errors import TallygateError
from tallygate.ports import Clock, OutboxDepth, Persisted, ShardDepth

log = structlog.get_logger(__name__)


class _Counts(Protocol):
    @property
    def more(self) -> bool: ...


class _Snapshot(Protocol):
    @property
    def lag_s(self) -> float: ...
    @property
    def completeness(self) -> float: ...
    @property
    def gaps(self) -> int: ...
    @property
    def depths(self) -> tuple[ShardDepth, ...]: ...


class LoopMetrics:
    """Counts rounds, and logs when a loop begins to fail and when it works again."""

    def __init__(self, metrics: Metrics) -> None:
        self._iterations = metrics.loop_iterations
        self._failing: set[str] = set()

    def ran(self, name: str, seconds: float, counts: _Counts) -> None:
        """Count a round that ended well."""
        self._iterations[name, "worked" if counts.more else "idle"].inc()
        if name in self._failing:
            self._failing.discard(name)
            log.info("loop_recovered", loop=name)

    def failed(self, name: str, error: Exception, delay_s: float) -> None:
        """Count a round that failed."""
        self._iterations[name, "failed"].inc()
        if name in self._failing:
            return
        self._failing.add(name)
        if isinstance(error, TallygateError):
            cause = repr(error.__cause__) if error.__cause__ else ""
            log.warning(
                "loop_failing", loop=name, reason=error.reason, detail=error.message, cause=cause
            )
        else:
            log.error("loop_failing", loop=name, exc_info=error)


class IngestMetrics:
    """Counts what the ledger has stored, and shows how far it is behind."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for reason in ("refused", "unstorable"):
            # From the first scrape on: an alarm has to see the first one as a rise.
            metrics.events_dead_letter[reason].inc(0)

    def persisted(self, persisted: Persisted) -> None:
        """Count a committed transaction."""
        self._metrics.events_persisted.inc(persisted.events)
        self._metrics.events_duplicate.inc(persisted.duplicates)
        self._metrics.events_dead_letter["refused"].inc(persisted.rejected)
        self._metrics.threshold_crossings.inc(persisted.crossings)
        self._metrics.credit_burns.inc(persisted.burns)
        self._metrics.periods.late(persisted.late)

    def poisoned(self, detail: str) -> None:
        """Count and log a part of a batch that can never be stored."""
        self._metrics.events_dead_letter["unstorable"].inc()
        log.error("event_unstorable", detail=detail)

    def measured(self, snapshot: _Snapshot) -> None:
        """Show the distance between stream and ledger."""
        self._metrics.ingest_lag.set(snapshot.lag_s)
        self._metrics.completeness_ratio.set(snapshot.completeness)
        self._metrics.source_gaps.set(snapshot.gaps)
        for depth in snapshot.depths:
            self._metrics.stream_depth[str(depth.shard)].set(depth.entries)
            self._metrics.stream_pending[str(depth.shard)].set(depth.pending)


class StreamMetrics:
    """Counts what a consumer has to mend."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def group_recreated(self) -> None:
        """Count and log a consumer group that was lost."""
        self._metrics.stream_groups_recreated.inc()
        log.error("stream_group_recreated")

    def taken_over(self, entries: int) -> None:
        """Count entries that another consumer had left."""
        self._metrics.stream_taken_over.inc(entries)


class RelayMetrics:
    """Counts deliveries, and shows what awaits each destination."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock

    def delivered(self, destination: str, count: int) -> None:
        """Count what was sent and marked."""
        self._metrics.deliveries[destination, "sent"].inc(count)

    def retried(self, destination: str, count: int) -> None:
        """Count what waits for another try."""
        self._metrics.deliveries[destination, "retried"].inc(count)

    def parked(self, destination: str, count: int) -> None:
        """Count what was given up on."""
        self._metrics.deliveries[destination, "parked"].inc(count)
        log.error("delivery_parked", destination=destination, count=count)

    def stale(self, destination: str, count: int) -> None:
        """Count answers that came after another relay had taken over."""
        self._metrics.deliveries[destination, "stale"].inc(count)

    def measured(self, depths: list[OutboxDepth]) -> None:
        """Show what awaits every destination."""
        now_us = self._clock.now_us()
        self._metrics.outbox_pending.replace({each.destination: each.pending for each in depths})
        self._metrics.outbox_parked.replace({each.destination: each.parked for each in depths})
        self._metrics.outbox_age.replace(
            {
                each.destination: max(0, now_us - each.oldest_us) / 1e6 if each.oldest_us else 0.0
                for each in depths
            }
        )

    def held_back(self, lag_s: float) -> None:
        """Show for how long readers that tail the outbox have been held back."""
        self._metrics.outbox_gate_lag.set(lag_s)


class PoolMetrics:
    """Shows how many connections to Postgres are in use, and how many callers wait for one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def used(self, lent: int, waiting: int) -> None:
        """Show both."""
        self._metrics.postgres_lent.set(lent)
        self._metrics.postgres_waiting.set(waiting)
