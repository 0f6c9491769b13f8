"""outage ─▶ [ backlog ] ─▶ QuotaStore: what was granted without the store is counted afterwards.

If we die here, what still waits is in the journal, and the next process goes on with it. Without a
journal it is lost: a stop in good order hands over what it can and tells the rest. If we die
between the store's answer and taking an operation off, nothing is lost: the store has it.

Guarantees: what was granted is sent as it was, in order, until the store has it; the store knows an
operation by its id, so that one it had applied before it went away is not counted twice. Bounded in
memory, in operations and in bytes; beyond that, records are on the disk alone.
Refuses to know: what may be granted.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from tallygate.domain.decision import (
    Decided,
    Fenced,
    Mode,
    Operation,
    Outcome,
)
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import OperationId, TenantId
from tallygate.flow.resubmit import EventDater, Granted, Rebinder, settle, ungated
from tallygate.ports import Clock, QuotaStore
from tallygate.ports.journal import Debit, Entry, EntryKind, Journal, Stored

# Python's own cost of an operation, and of a limit of it with its reading: measured.
ENTRY_BYTES: Final = 900
CHARGE_BYTES: Final = 500
BATCH_MAX: Final = 128
# Marks for which the journal is read at once: a segment holds some thousands of entries.
FETCH_MAX: Final = 5_000
# For what was taken to be written, before it is read back.
FETCH_WAIT_S: Final = 1.0
# Between two tries of a flush: short beside the grace that a stopping process has.
FLUSH_PAUSE_S: Final = 0.05
S_US: Final = 1_000_000

Key = tuple[TenantId, OperationId]


class BacklogObserver(Protocol):
    """What the backlog tells of itself."""

    def resubmitted(self, outcome: str, operations: int) -> None:
        """So many were handed over: counted, replayed, uncounted, conflict or unreadable."""

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
    # None where nothing outlives the process.
    journal: Journal | None = None


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
        # What is on the disk alone, by its marks there, oldest first.
        self._beyond: deque[int] = deque()
        self._bytes = 0
        # A flush may begin while a loop's run is under way.
        self._turn = asyncio.Lock()
        # What was read back is bound to limits by it; set once the catalog's view is there.
        self.rebinder: Rebinder | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._beyond)

    def waits_for(self, shard: int) -> bool:
        """Say whether something may wait for a shard: of what is on the disk alone, any."""
        if self._beyond:
            return True
        return any(each.operation.shard == shard for each in self._waiting.values())

    @property
    def durable(self) -> bool:
        """Whether what is added outlives the process."""
        return self._parts.journal is not None

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

    def add(self, operation: Operation, answer: Decided) -> Decided | None:
        """Keep an operation that has an id; return its answer, None where there is no room."""
        key = key_of(operation)
        assert key is not None
        size = _size(operation)
        full = not self._room(size)
        journal, mark = self._parts.journal, 0
        if full and not (journal is not None and operation.mode is Mode.RECORD):
            return None
        if journal is not None:
            debits = tuple((each.account, each.field, each.amount) for each in operation.charges)
            entry = Entry(EntryKind.PENDING, operation, answer.at_us, debits=debits)
            mark = journal.append(entry)
            if not mark:
                return None
            answer = replace(answer, journal_mark=mark)
        if full:
            self._beyond.append(mark)
            return answer
        assert key not in self._waiting
        now_s = self._parts.clock.monotonic()
        self._waiting[key] = Granted(operation, answer, now_s, mark=mark)
        self._bytes += size
        return answer

    def _room(self, size: int) -> bool:
        options = self._options
        return len(self) < options.operations_max and self._bytes + size <= options.bytes_max

    async def resume(self) -> list[Debit]:
        """Take up what the process before this one left in the journal; return its debits."""
        journal = self._parts.journal
        debits: list[Debit] = []
        if journal is None:
            return debits
        marks = list(journal.pending())
        for start in range(0, len(marks), FETCH_MAX):
            for stored in await journal.read(marks[start : start + FETCH_MAX]):
                debits += stored.entry.debits
                # Repeats of grants have to be known; repeats of records are known to the store.
                if stored.entry.operation.mode is Mode.RECORD:
                    self._beyond.append(stored.mark)
                else:
                    self._take_up(stored)
        return debits

    def _take_up(self, stored: Stored) -> None:
        entry, parts = stored.entry, self._parts
        key = key_of(entry.operation)
        if key is None or key in self._waiting:
            # It was kept twice, as its repeat could not be known any more.
            assert parts.journal is not None
            parts.journal.resolve(stored.mark)
            return
        ago_s = max(0.0, (parts.clock.now_us() - entry.at_us) / S_US)
        answer = Decided(True, entry.at_us, (), degraded=True, journal_mark=stored.mark)
        self._waiting[key] = Granted(
            entry.operation,
            answer,
            parts.clock.monotonic() - ago_s,
            mark=stored.mark,
            bound=False,
        )
        self._bytes += _size(entry.operation)

    async def run_once(self) -> Drained:
        """Hand over the oldest. Raises `BackendUnavailable` when the store takes none of them."""
        async with self._turn:
            return await self._hand_over()

    async def flush(self, grace_s: float, probe: Callable[[], Awaitable[None]]) -> int:
        """Hand over all that the grace allows, probing for the store; return how many are left."""
        try:
            async with asyncio.timeout(grace_s):
                while len(self):
                    await self._try_once(probe)
        except TimeoutError:
            if not self.durable:
                self._parts.observer.lost(len(self))
        return len(self)

    async def _try_once(self, probe: Callable[[], Awaitable[None]]) -> None:
        try:
            await probe()
            await self.run_once()
        except TallygateError:
            await asyncio.sleep(FLUSH_PAUSE_S)

    async def _hand_over(self) -> Drained:
        if not self._waiting:
            await self._fetch()
        batch = list(islice(self._waiting.items(), self._options.batch_max))
        if not batch:
            return Drained()
        operations = [await self._ungated(each) for _, each in batch]
        outcomes = await self._parts.store.decide(operations)
        taken = 0
        failure: TallygateError | None = None
        for (key, granted), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Fenced):
                # It would be taken from a balance that has not been given its grants again.
                failure = failure or BackendUnavailable("the shard's counters are being rebuilt")
                self._waiting[key] = self._waiting.pop(key)
            elif isinstance(outcome, TallygateError):
                failure = outcome
                if not isinstance(outcome, BackendUnavailable):
                    # One broken shard must not keep the others waiting.
                    self._waiting[key] = self._waiting.pop(key)
            elif self._settled(granted, outcome):
                taken += 1
                self._bytes -= _size(self._waiting.pop(key).operation)
                if self._parts.journal is not None and granted.mark:
                    self._parts.journal.resolve(granted.mark)
        if failure is not None and not taken:
            raise failure
        return Drained(taken, more=bool(len(self)))

    async def _fetch(self) -> None:
        """Read the oldest of what is on the disk alone."""
        journal = self._parts.journal
        if journal is None or not self._beyond:
            return
        marks = list(islice(self._beyond, FETCH_MAX))
        if not await journal.reached(marks[-1], FETCH_WAIT_S, synced=False):
            return
        found = await journal.read(marks)
        unread = set(marks)
        for stored in found:
            unread.discard(stored.mark)
            self._take_up(stored)
        for _ in marks:
            self._beyond.popleft()
        for mark in unread:
            # What is left of it was put aside when the journal was opened.
            journal.resolve(mark)
            self._parts.observer.resubmitted("unreadable", 1)

    async def _ungated(self, granted: Granted) -> Operation:
        """Return the operation as it was granted. Raises `BackendUnavailable`."""
        at_us = granted.answer.at_us
        if not granted.bound:
            assert self.rebinder is not None
            entry = Entry(EntryKind.PENDING, granted.operation, at_us)
            self._resize(granted, await self.rebinder.operation(entry))
            granted.bound = True
        return ungated(granted.operation, at_us, self._parts.dater)

    def _settled(self, granted: Granted, outcome: Outcome) -> bool:
        """Take in an outcome; say whether the operation need not be sent again."""
        before = granted.operation
        settled = settle(granted, outcome)
        self._bytes += _size(granted.operation) - _size(before)
        if settled in ("counted", "uncounted"):
            self._parts.observer.accepted(before.event_count)
        if settled:
            self._parts.observer.resubmitted(settled, 1)
        return bool(settled)

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
