"""What the seams tell of themselves, turned into metrics.

Guarantees: each observer costs a dictionary look-up and an addition, as they sit on hot paths.
Refuses to know who calls: each class has the shape of one observer protocol and imports none.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from tallygate.adapters.prometheus.metrics import Metrics

log = structlog.get_logger(__name__)


def _soon(add: Callable[[], None]) -> bool:
    """Have it called at the end of the loop's turn, or at once without one; say if it waits."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        add()
        return False
    loop.call_soon(add)
    return True


class AdmitMetrics:
    """Counts decisions by their outcome, and accepted events.

    A counter takes a lock, so that those of one turn of the event loop are added up before.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._decisions = metrics.decisions
        self._accepted = metrics.events_accepted
        self._outcomes: dict[str, int] = {}
        self._events = 0
        self._waits = False

    def decided(self, outcome: str) -> None:
        """Count an operation that ended."""
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        if not self._waits:
            self._waits = _soon(self._add)

    def accepted(self, events: int) -> None:
        """Count events that are new in a stream."""
        self._events += events
        if not self._waits:
            self._waits = _soon(self._add)

    def _add(self) -> None:
        self._waits = False
        outcomes, self._outcomes = self._outcomes, {}
        events, self._events = self._events, 0
        for outcome, count in outcomes.items():
            self._decisions[outcome].inc(count)
        if events:
            self._accepted.inc(events)


class StoreMetrics:
    """Counts what befalls the store's scripts, and sizes its pipelines."""

    def __init__(self, metrics: Metrics) -> None:
        self._reloads = metrics.redis_script_reloads
        self._epochs = metrics.redis_epoch_changes
        self._rollbacks = metrics.redis_rollbacks
        self._batch = metrics.script_batch
        self._duration = metrics.script_duration["admit"]

    def script_reloaded(self) -> None:
        """Count a script that a server had forgotten."""
        self._reloads.inc()

    def epoch_changed(self, shard: int) -> None:
        """Count a shard whose counters were lost; the log says which."""
        self._epochs.inc()
        log.error("redis_epoch_changed", shard=shard)

    def rolled_back(self, shard: int) -> None:
        """Count a shard whose data was older than it had been; the log says which."""
        self._rollbacks.inc()
        log.error("redis_rolled_back", shard=shard)

    def pipeline_finished(self, operations: int, seconds: float) -> None:
        """Note how many operations one pipeline carried, and how long it took."""
        self._batch.observe(operations)
        self._duration.observe(seconds)


class EdgeMetrics:
    """Counts calls in flight, and times each by its method and code."""

    def __init__(self, metrics: Metrics) -> None:
        self._in_flight = metrics.rpc_in_flight
        self._duration = metrics.rpc_duration
        self._shed = metrics.rpc_shed

    def calls_started(self, calls: int) -> None:
        """Count calls in."""
        self._in_flight.inc(calls)

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Count calls out, and note how long each took."""
        self._in_flight.dec(len(seconds))
        self._duration.observe((method, code), seconds)

    def call_recorded(self, method: str, code: str, seconds: float, trace: str) -> None:
        """Have a bucket show the trace of a call that was recorded."""
        self._duration.exemplify((method, code), seconds, trace)

    def call_shed(self) -> None:
        """Count a call that was refused unread."""
        self._shed.inc()


class WatchMetrics:
    """Counts the watches that are open, and the reads made for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._watches = metrics.watches
        self._questions = metrics.watched_questions
        self._polls = metrics.watch_polls

    def watching(self, watches: int, questions: int) -> None:
        """Note how many watches are open, on how many questions."""
        self._watches.set(watches)
        self._questions.set(questions)

    def polled(self, outcome: str, count: int) -> None:
        """Count questions that were read."""
        self._polls[outcome].inc(count)
