"""api ─▶ [ gather ] ─▶ QuotaStore: calls that arrive together share a pipeline.

If we die here, queued operations were not sent and nobody was answered: callers retry. Operations
in flight may have been applied: callers retry with the same operation id and are told.

Guarantees: one pipeline is in flight at a time, fed by whatever queued meanwhile; a caller that
goes away neither undoes nor repeats what was sent; what nobody waits for any more is not sent.
Refuses to know: what operations mean.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.decision import Operation, Outcome
from tallygate.domain.errors import DeadlineTooShort, Overloaded, TallygateError
from tallygate.ports import Clock, QuotaStore

Answers = list[Outcome | TallygateError]

# A decision takes about 1 ms with a Redis nearby: what has less left is not worth charging.
HOPELESS_S: Final = 0.001
# Long enough for the queue to drain at a few thousand calls a second.
PUSHBACK_US: Final = 200_000


@dataclass(slots=True)
class _Waiting:
    operations: Sequence[Operation]
    answer: asyncio.Future[Answers]


def _ignore(_: int) -> None:
    """Hear nothing."""


class Gather:
    """A bounded queue in front of the store, and the one task that empties it."""

    def __init__(
        self,
        store: QuotaStore,
        clock: Clock,
        *,
        queue_max: int,
        batch_max: int,
        refused: Callable[[int], None] = _ignore,
    ) -> None:
        self._store = store
        self._clock = clock
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._refused = refused
        self._queue: deque[_Waiting] = deque()
        self._depth = 0
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def depth(self) -> int:
        """The number of operations that wait to be sent."""
        return self._depth

    async def decide(self, operations: Sequence[Operation]) -> Answers:
        """Return one answer per operation, in order. Raises `Overloaded` when the queue is full."""
        if self._depth + len(operations) > self._queue_max or self._closing:
            self._refused(len(operations))
            raise Overloaded(retry_after_us=PUSHBACK_US)
        answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(operations, answer))
        self._depth += len(operations)
        self._wake.set()
        return await answer

    async def run(self) -> None:
        """Send what is queued, until closed and empty."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._send_some()
            if self._closing:
                return

    def close(self) -> None:
        """Take no more; `run` returns when what is queued has been answered."""
        self._closing = True
        self._wake.set()

    async def _send_some(self) -> None:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and size < self._batch_max:
            waiting = self._queue.popleft()
            self._depth -= len(waiting.operations)
            if not waiting.answer.cancelled():
                batch.append(waiting)
                size += len(waiting.operations)
        hopeless_at = self._clock.monotonic() + HOPELESS_S
        sent = [
            operation
            for waiting in batch
            for operation in waiting.operations
            if operation.expires_at > hopeless_at
        ]
        try:
            answers = iter(await self._store.decide(sent) if sent else [])
        except Exception as error:  # noqa: BLE001  one pipeline's fault must not end all later ones
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting in batch:
            own: Answers = [
                next(answers) if operation.expires_at > hopeless_at else DeadlineTooShort()
                for operation in waiting.operations
            ]
            if not waiting.answer.done():
                waiting.answer.set_result(own)
