"""gather ─▶ [ stream_room ] ─▶ breaker: to a stream that is full, nothing is added.

If we die here, nothing has happened yet. How long the streams are is found out anew by the next
process.

Guarantees: while the ledger is away, a shard's stream grows to its bound, and by what all sidecars
add between two looks at it, and no further. What would add to it is answered as if the store were
away: the limits' `on_outage` rules decide, and `RecordUsage` goes into the journal. What settles a
reservation passes, as it is bounded by those that were made before.
Refuses to know: who drains the streams, and why not.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from tallygate.domain.decision import Mode, Operation, Outcome, Reservation
from tallygate.domain.errors import NotAsked, TallygateError
from tallygate.ports import OperationKey, QuotaStore, Recorded, ReservationKey

ADDS: Final = frozenset({Mode.CONSUME, Mode.RECORD, Mode.REJECT, Mode.RESERVE})
# A stream counts as full until this much of its room is free, so that it is not full by turns.
FREE_SHARE: Final = 0.1
# A stream that was full for long takes seconds to drain, at the least.
RETRY_US: Final = 2_000_000

Answer = Outcome | TallygateError


class StreamRoomObserver(Protocol):
    """What is told of full streams."""

    def streams_full(self, shards: int) -> None:
        """So many shards' streams are full now."""
        ...


class StreamFull(NotAsked):
    """Too much usage waits for the ledger; nothing was charged."""


class StreamRoom:
    """The `QuotaStore` port in front of another one. `measure` is a step of a loop."""

    def __init__(
        self,
        store: QuotaStore,
        lengths: Callable[[], Awaitable[Sequence[int]]],
        entries_max: int,
        observer: StreamRoomObserver,
    ) -> None:
        self._store = store
        self._lengths = lengths
        self._entries_max = entries_max
        self._observer = observer
        self._full: frozenset[int] = frozenset()

    async def measure(self) -> None:
        """Look how long each shard's stream is. Raises what the store raises."""
        free = self._entries_max * (1 - FREE_SHARE)
        self._full = frozenset(
            shard
            for shard, length in enumerate(await self._lengths())
            if length >= (free if shard in self._full else self._entries_max)
        )
        self._observer.streams_full(len(self._full))

    async def decide(self, operations: Sequence[Operation]) -> list[Answer]:
        """Return one answer per operation, in order; `StreamFull` for what found no room."""
        if not self._full:
            return await self._store.decide(operations)
        answers: list[Answer] = [
            StreamFull(retry_after_us=RETRY_US) if self.keeps_out(each) else NotAsked()
            for each in operations
        ]
        places = [place for place, each in enumerate(answers) if not isinstance(each, StreamFull)]
        if places:
            decided = await self._store.decide([operations[place] for place in places])
            for place, answer in zip(places, decided, strict=True):
                answers[place] = answer
        return answers

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return what the store has; see the port."""
        return await self._store.reservation(key)

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return what the store has; see the port."""
        return await self._store.recorded(key)

    def keeps_out(self, operation: Operation) -> bool:
        """Say whether an operation would add to a stream that is full."""
        return operation.shard in self._full and operation.mode in ADDS
