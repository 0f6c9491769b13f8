"""outage ─▶ [ backlog ] ─▶ QuotaStore: what was granted without the store is counted afterwards.

If we die here, what still waits is lost: it was granted, and nobody will know. A stop in good order
hands over what it can and tells the rest. If we die between the store's answer and taking an
operation off, nothing is lost: the store has it.

Guarantees: what was granted is sent as it was, in order, until the store has it; the store knows an
operation by its id, so that one it had applied before it went away is not counted twice. Bounded in
operations and in bytes.
Refuses to know: what may be granted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    Decided,
    Moved,
    Operation,
    Outcome,
    Reused,
    Stale,
)
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import OperationId, TenantId
from tallygate.domain.limit import in_reach
from tallygate.ports import Clock, QuotaStore

# Python's own cost of an operation, and of a limit of it with its reading: measured.
ENTRY_BYTES: Final = 900
CHARGE_BYTES: Final = 500
BATCH_MAX: Final = 128
# Between two tries of a flush: short beside the grace that a stopping process has.
FLUSH_PAUSE_S: Final = 0.05

Key = tuple[TenantId, OperationId]


class EventDater(Protocol):
    """Writes a time into encoded events."""

    def dated(self, payload: bytes, at_us: int) -> bytes:
        """Return the events of a unit of the stream with that time where they name none."""
        ...


class BacklogObserver(Protocol):
    """What the backlog tells of itself."""

    def resubmitted(self, outcome: str, operations: int) -> None:
        """So many were handed over: counted, replayed, uncounted or conflict."""

    def accepted(self, events: int) -> None:
        """So many events are in the stream that were not there before."""

    def lost(self, operations: int) -> None:
        """So many were given up at the end of the process."""


@dataclass(frozen=True, slots=True)
class BacklogOptions:
    """How much may wait, and how much is sent at once."""

    operations_max: int
    bytes_max: int
    batch_max: int = BATCH_MAX


@dataclass(frozen=True, slots=True)
class BacklogParts:
    """What the backlog works with."""

    store: QuotaStore
    dater: EventDater
    clock: Clock
    observer: BacklogObserver


@dataclass(slots=True)
class Granted:
    """An operation that was granted without the store, its answer, and when, in store time."""

    operation: Operation
    answer: Decided
    granted_s: float
    uncounted: bool = False


@dataclass(frozen=True, slots=True)
class Drained:
    """What one run handed over; `more` says that more waits."""

    operations: int = 0
    more: bool = False


class Backlog:
    """What waits for the store, by operation, oldest first. A step of a loop hands it over."""

    def __init__(self, parts: BacklogParts, options: BacklogOptions) -> None:
        self._parts = parts
        self._options = options
        self._waiting: dict[Key, Granted] = {}
        self._bytes = 0
        # A flush may begin while a loop's run is under way.
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """What the waiting operations take of memory, about."""
        return self._bytes

    @property
    def age_s(self) -> float:
        """How long the oldest has waited, 0 for none."""
        oldest = next(iter(self._waiting.values()), None)
        return 0.0 if oldest is None else self._parts.clock.monotonic() - oldest.granted_s

    def get(self, operation: Operation) -> Granted | None:
        """Return what waits under the operation's id."""
        key = key_of(operation)
        return None if key is None else self._waiting.get(key)

    def add(self, operation: Operation, answer: Decided) -> bool:
        """Keep an operation that has an id; say whether there was room."""
        key = key_of(operation)
        assert key is not None
        size = _size(operation)
        full = len(self._waiting) >= self._options.operations_max
        if full or self._bytes + size > self._options.bytes_max:
            return False
        assert key not in self._waiting
        self._waiting[key] = Granted(operation, answer, self._parts.clock.monotonic())
        self._bytes += size
        return True

    async def run_once(self) -> Drained:
        """Hand over the oldest. Raises `BackendUnavailable` when the store takes none of them."""
        async with self._turn:
            return await self._hand_over()

    async def flush(self, grace_s: float, probe: Callable[[], Awaitable[None]]) -> int:
        """Hand over all that the grace allows, probing for the store; return how many are lost."""
        try:
            async with asyncio.timeout(grace_s):
                while self._waiting:
                    await self._try_once(probe)
        except TimeoutError:
            self._parts.observer.lost(len(self._waiting))
        return len(self._waiting)

    async def _try_once(self, probe: Callable[[], Awaitable[None]]) -> None:
        try:
            await probe()
            await self.run_once()
        except TallygateError:
            await asyncio.sleep(FLUSH_PAUSE_S)

    async def _hand_over(self) -> Drained:
        batch = list(islice(self._waiting.items(), self._options.batch_max))
        if not batch:
            return Drained()
        outcomes = await self._parts.store.decide([self._ungated(each) for _, each in batch])
        taken = 0
        failure: TallygateError | None = None
        for (key, granted), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, TallygateError):
                failure = outcome
                if not isinstance(outcome, BackendUnavailable):
                    # One broken shard must not keep the others waiting.
                    self._waiting[key] = self._waiting.pop(key)
            elif self._settled(granted, outcome):
                taken += 1
                self._bytes -= _size(self._waiting.pop(key).operation)
        if failure is not None and not taken:
            raise failure
        return Drained(taken, more=bool(self._waiting))

    def _ungated(self, granted: Granted) -> Operation:
        """Return the operation as it was granted, such that no limit refuses it."""
        operation, at_us = granted.operation, granted.answer.at_us
        payload = operation.payload
        if not operation.event_time_us:
            # An event says when it was, and that was not when the store comes to it.
            payload = self._parts.dater.dated(payload, at_us)
        return replace(
            operation,
            charges=tuple(
                replace(charge, on_exceed=OnExceed.ALLOW)
                if charge.on_exceed is OnExceed.REFUSE
                else charge
                for charge in operation.charges
            ),
            event_time_us=operation.event_time_us or at_us,
            payload=payload,
            expires_at=float("inf"),
        )

    def _settled(self, granted: Granted, outcome: Outcome) -> bool:
        """Take in an outcome; say whether the operation need not be sent again."""
        observer, operation = self._parts.observer, granted.operation
        match outcome:
            case Decided(allowed=True, replayed=replayed):
                if not replayed:
                    observer.accepted(operation.event_count)
                counted = "uncounted" if granted.uncounted else "counted"
                observer.resubmitted("replayed" if replayed else counted, 1)
                return True
            case Reused():
                # Another sidecar granted other content under the same id: the caller's own fault.
                observer.resubmitted("conflict", 1)
                return True
            case Stale(now_us):
                # Counters of windows that are over need nothing any more.
                live = tuple(each for each in operation.charges if in_reach(each.rule, now_us))
                self._resize(granted, replace(operation, charges=live))
            case Moved():
                # Its counters are elsewhere by now. Its event belongs to the ledger, which knows it
                # by its own id.
                granted.uncounted = True
                self._resize(granted, replace(operation, charges=(), operation_id=None))
            case _ if operation.charges:
                # A counter that cannot be changed must not keep its event from the ledger.
                granted.uncounted = True
                self._resize(granted, replace(operation, charges=()))
            case _:
                observer.resubmitted("conflict", 1)
                return True
        return False

    def _resize(self, granted: Granted, operation: Operation) -> None:
        self._bytes += _size(operation) - _size(granted.operation)
        granted.operation = operation


def key_of(operation: Operation) -> Key | None:
    """Return what tells an operation from all others, None where it has no id."""
    if operation.operation_id is None:
        return None
    return operation.tenant_id, operation.operation_id


def _size(operation: Operation) -> int:
    return ENTRY_BYTES + CHARGE_BYTES * len(operation.charges) + len(operation.payload)
