"""api ─▶ [ gather ] ─▶ QuotaStore: calls that arrive together share a pipeline.

If we die here, queued operations were not sent and nobody was answered: callers retry. Operations
in flight may have been applied: callers retry with the same operation id and are told.

Guarantees: one pipeline is in flight at a time, fed by whatever queued meanwhile, tenants taking
turns (`fair`), and the next one is on its way before the callers of the last are told; a caller
that goes away neither undoes nor repeats what was sent; what nobody waits for any more is not sent;
what could not be answered in time is refused before it waits.
Refuses to know: what operations mean.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.decision import Operation
from tallygate.domain.errors import DeadlineTooShort, Overloaded
from tallygate.domain.ids import TenantId
from tallygate.flow.fair import Answers, FairQueue, Part
from tallygate.flow.pressure import Pressure
from tallygate.ports import Clock, QuotaStore

# Above it, what waits is sent in halves: callers of the one are told while the store works on the
# other. Sent as one, all callers would wait for the store together, and the store for all of them.
HALVED_MIN: Final = 32
# Of the loop, until a pipeline is on the wire: the breaker makes a task of its call of the store.
TURNS_TO_WRITE: Final = 2
# A decision takes about 1 ms with a Redis nearby: what has less left is not worth charging.
HOPELESS_S: Final = 0.001


def _ignore(_: int) -> None:
    """Hear nothing."""


@dataclass(slots=True)
class Awaited:
    """A part whose caller waits for it; one that is cancelled has gone."""

    tenant_id: TenantId
    operations: Sequence[Operation]
    answer: asyncio.Future[Answers]

    def gone(self) -> bool:
        """Say whether its caller was cancelled."""
        return self.answer.done()

    def answered(self, answers: Answers) -> None:
        """Let the caller go on."""
        if not self.answer.done():
            self.answer.set_result(answers)

    def failed(self, error: Exception) -> None:
        """Raise it where the caller waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


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
        self._batch_max = batch_max
        self._refused = refused
        self._queue = FairQueue(queue_max, batch_max)
        self._pressure = Pressure(clock, batch_max)
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def depth(self) -> int:
        """The number of operations that wait to be sent."""
        return self._queue.depth

    @property
    def size_max(self) -> int:
        """How many operations a part may have: as many as a pipeline."""
        return self._batch_max

    async def decide(self, operations: Sequence[Operation]) -> Answers:
        """Return one answer per operation, in order.

        Raises `Overloaded` when all had to be refused; what had to be of some is their answer.
        """
        if self._closing:
            raise self._overloaded(len(operations))
        if not operations:
            return []
        first = operations[0].tenant_id
        if len(operations) <= self._batch_max:
            for operation in operations:
                if operation.tenant_id != first:
                    break
            else:
                return await self._wait(first, operations)
        return await self._decide_parts(operations)

    def refuse(self) -> int:
        """Note a call that is refused unread; return µs after which it may come back."""
        return self._pressure.refused(1, self._queue.depth)

    async def run(self) -> None:
        """Send what is queued, until closed and empty."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = self._clock.monotonic()
            last: _Pipeline | None = None
            while self._queue:
                sent = self._send_some()
                if last is not None:
                    # The store works on this one while the callers of the last one are told.
                    _after(TURNS_TO_WRITE, last.tell)
                try:
                    sent.answers = await self._decided(sent.operations)
                except Exception as error:  # noqa: BLE001  one pipeline's fault is not the next's
                    sent.error = error
                if last is not None:
                    last.tell()
                last = sent
                now_s = self._clock.monotonic()
                if sent.operations and sent.error is None:
                    self._pressure.answered(len(sent.operations), now_s - began_s)
                began_s = now_s
                if not self._queue:
                    last.tell()
                    last = None
            if self._closing:
                return

    def close(self) -> None:
        """Take no more; `run` returns when what is queued has been answered."""
        self._closing = True
        self._wake.set()

    def submit(self, part: Part) -> None:
        """Have a part answered, or failed with `Overloaded`, perhaps at once."""
        if self._closing:
            part.failed(self._overloaded(len(part.operations)))
            return
        if self._queue.depth > self._batch_max and self._hopeless(part):
            self._refuse(part)
            return
        for gone in self._queue.put(part):
            self._refuse(gone)
        self._wake.set()

    def _wait(
        self, tenant_id: TenantId, operations: Sequence[Operation]
    ) -> asyncio.Future[Answers]:
        """Return where the answers will be, or why there will be none."""
        answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self.submit(Awaited(tenant_id, operations, answer))
        return answer

    async def _decide_parts(self, operations: Sequence[Operation]) -> Answers:
        """Decide a long list, or one of several tenants, each tenant's operations by themselves."""
        places: dict[TenantId, list[int]] = {}
        for place, operation in enumerate(operations):
            places.setdefault(operation.tenant_id, []).append(place)
        parts = [
            (tenant_id, own[start : start + self._batch_max])
            for tenant_id, own in places.items()
            for start in range(0, len(own), self._batch_max)
        ]
        waiting = [
            self._wait(tenant_id, [operations[place] for place in own]) for tenant_id, own in parts
        ]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        answers: Answers = [DeadlineTooShort()] * len(operations)
        for (_, own), answer in zip(parts, found, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Overloaded):
                raise answer
            each = [answer] * len(own) if isinstance(answer, Overloaded) else answer
            for place, one in zip(own, each, strict=True):
                answers[place] = one
        refused = [answer for answer in found if isinstance(answer, Overloaded)]
        if len(refused) == len(found) and refused:
            raise refused[0]
        return answers

    def _hopeless(self, part: Part) -> bool:
        """Whether so much of its tenant's waits that nobody would wait for the answer."""
        wait_s = self._pressure.wait_s(self._queue.ahead(part.tenant_id))
        by_s = self._clock.monotonic() + wait_s
        return all(operation.expires_at < by_s for operation in part.operations)

    def _refuse(self, part: Part) -> None:
        if not part.gone():
            part.failed(self._overloaded(len(part.operations)))

    def _overloaded(self, operations: int) -> Overloaded:
        self._refused(operations)
        return Overloaded(retry_after_us=self._pressure.refused(operations, self._queue.depth))

    def _send_some(self) -> "_Pipeline":
        """Send a pipeline's worth."""
        half = (self._queue.depth + 1) // 2
        batch = self._queue.take(min(self._batch_max, max(half, HALVED_MIN)))
        hopeless_at = self._clock.monotonic() + HOPELESS_S
        operations = [
            operation
            for part in batch
            for operation in part.operations
            if operation.expires_at > hopeless_at
        ]
        return _Pipeline(batch, operations, hopeless_at)

    async def _decided(self, operations: Sequence[Operation]) -> Answers:
        return await self._store.decide(operations) if operations else []


@dataclass(slots=True)
class _Pipeline:
    """Parts that were sent together, of them the operations that were worth it, and the answers."""

    parts: Sequence[Part]
    operations: Sequence[Operation]
    hopeless_at: float
    answers: Answers = field(default_factory=list)
    error: Exception | None = None
    told: bool = False

    def tell(self) -> None:
        """Tell each part what came of it, once the store has answered; once only."""
        if self.told:
            return
        self.told = True
        if self.error is not None:
            for part in self.parts:
                part.failed(self.error)
            return
        answers = iter(self.answers)
        for part in self.parts:
            part.answered(
                [
                    next(answers) if operation.expires_at > self.hopeless_at else DeadlineTooShort()
                    for operation in part.operations
                ]
            )


def _after(turns: int, call: Callable[[], None]) -> None:
    """Call it so many turns of the loop from now."""
    if turns:
        asyncio.get_running_loop().call_soon(_after, turns - 1, call)
    else:
        call()
