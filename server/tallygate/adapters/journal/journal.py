"""The journal on disk, behind its port.

Guarantees: an entry that is said to be synced is found again after a loss of power; segments that
are damaged give all that can be read of them, and what cannot is put aside and counted.
Refuses to know: what entries are good for.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar

from tallygate.adapters.journal.entry_codec import Item, Released, Resolved, decode
from tallygate.adapters.journal.files import Files
from tallygate.adapters.journal.index import held_key
from tallygate.adapters.journal.recovery import Found, recover
from tallygate.adapters.journal.segment import RECORD_BYTES, walk
from tallygate.adapters.journal.waiter import Waiter
from tallygate.adapters.journal.writer import Writer, WriterObserver, WriterParts
from tallygate.ports.epochs import Ranges
from tallygate.ports.journal import (
    Batch,
    Entry,
    EntryKind,
    Group,
    HeldKey,
    JournalSize,
    Lane,
    Stored,
    each_of,
)

# What Python and the record need of an entry beside its payload: measured.
ENTRY_BYTES: Final = 300
# And of an operation id in a group.
ID_BYTES: Final = 100
CHUNK_MAX: Final = 1_000
# What nobody waits for gathers for so long: a write costs as much for one entry as for a hundred.
LINGER_S: Final = 0.01
# The oldest segment is written anew when so little of it is needed and so many lie behind it.
CARRY_SHARE: Final = 8
CARRY_BEHIND: Final = 4

T = TypeVar("T")


class JournalObserver(WriterObserver, Protocol):
    """What the journal tells of itself."""

    def damaged(self, kind: str, spans: int) -> None:
        """So many spans could not be read: corrupt, or torn at the end of a segment."""

    def turned_away(self, reason: str, entries: int) -> None:
        """So many entries were not taken: full, broken, or as too much is queued."""


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """Bounds: of the segments on disk, and of what is not synced yet.

    Without `threaded` everything is written by whoever waits for it: for simulations.
    """

    bytes_max: int
    queue_max: int = 100_000
    queue_bytes_max: int = 64 * 1024 * 1024
    threaded: bool = True


class FileJournal:
    """The `Journal` port over a folder of segments. Made by `open_journal`."""

    def __init__(
        self, files: Files, options: JournalOptions, observer: JournalObserver, found: Found
    ) -> None:
        self._files = files
        self._options = options
        self._observer = observer
        self._index = found.index
        self._next = found.next_mark
        self._salt = found.salt
        self._waiters: list[Waiter] = []
        # How many entries of a group are not resolved, of groups that were read.
        self._read: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self._telling = threading.Event()
        # Whether what nobody waits for is about to be written.
        self._lingers = False
        parts = WriterParts(files, found.index, observer, self._told)
        self._writer = Writer(parts, found)
        if options.threaded:
            self._writer.start()
        self._closed = False

    @property
    def taking(self) -> bool:
        """Whether entries are taken."""
        return not self._refusal()

    @property
    def newest(self) -> int:
        """The mark of what was taken last."""
        return self._next - 1

    def append(self, entry: Entry | Group | Batch) -> int:
        """Take an entry. See the port."""
        reason = self._refusal()
        if reason:
            self._observer.turned_away(reason, len(entry.placed) if isinstance(entry, Batch) else 1)
            return 0
        return self._put(entry, _size(entry))

    def _refusal(self) -> str:
        writer, options = self._writer, self._options
        if self._closed or writer.failing:
            return writer.failing or "broken"
        if self._index.size_bytes + writer.queued_bytes >= options.bytes_max:
            return "full"
        if writer.queued >= options.queue_max or writer.queued_bytes >= options.queue_bytes_max:
            return "queue"
        return ""

    async def reached(self, mark: int, timeout_s: float, *, synced: bool) -> bool:
        """Wait until the entry is written, or synced. See the port."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def then(reached: bool) -> None:
            if not answer.done():
                answer.set_result(reached)

        self.when(mark, timeout_s, then, synced=synced)
        return await answer

    def when(
        self, mark: int, timeout_s: float, then: Callable[[bool], None], *, synced: bool
    ) -> None:
        """Tell whether the entry is written, or synced, once it is. See the port."""
        if self._has(mark, synced):
            then(True)
            return
        if self._writer.failing or self._closed:
            then(False)
            return
        waiter = Waiter(mark, synced, then)
        self._waiters.append(waiter)
        self._hasten(synced)
        if self._has(mark, synced):
            # The thread may have come past between the look and the list.
            waiter.tell(True)
            return
        waiter.expiry = self._loop.call_later(timeout_s, waiter.tell, False)

    def _hasten(self, synced: bool) -> None:
        if self._options.threaded:
            self._writer.hasten(synced=synced)
        else:
            self._writer.step()

    async def _apart(self, function: Callable[[str], T], name: str) -> T:
        """Call what reads or removes files, beside the loop."""
        if self._options.threaded:
            return await asyncio.to_thread(function, name)
        self._writer.step()
        return function(name)

    def _has(self, mark: int, synced: bool) -> bool:
        return mark <= (self._writer.synced if synced else self._writer.written)

    def _told(self) -> None:
        """Wake the loop, from the writer's thread."""
        if self._waiters and not self._telling.is_set():
            self._telling.set()
            try:
                self._loop.call_soon_threadsafe(self._advance)
            except RuntimeError:
                # The loop has ended: nobody waits.
                return

    def _advance(self) -> None:
        self._telling.clear()
        waiting: list[Waiter] = []
        some, self._waiters = self._waiters, waiting
        for waiter in some:
            if waiter.then is None:
                continue
            if self._has(waiter.mark, waiter.synced):
                waiter.tell(True)
            elif self._writer.failing:
                waiter.tell(False)
            else:
                waiting.append(waiter)

    def resolve(self, *marks: int) -> None:
        """Forget PENDING entries. See the port."""
        over: list[int] = []
        for mark in marks:
            left = self._read.get(mark, 1) - 1
            if left:
                self._read[mark] = left
            else:
                self._read.pop(mark, None)
                over.append(mark)
        if over:
            self._put(Resolved(tuple(over)), ENTRY_BYTES)

    def release(self, key: HeldKey) -> None:
        """Forget a reservation."""
        self._put(Released(key), ENTRY_BYTES)

    def _put(self, item: Item, size: int) -> int:
        """Queue an item, to be written with what comes shortly; return its mark."""
        mark = self._next
        self._next += 1
        self._writer.put(mark, item, size)
        if not self._lingers and self._options.threaded:
            self._lingers = True
            self._loop.call_later(LINGER_S, self._written_anyway)
        return mark

    def _written_anyway(self) -> None:
        self._lingers = False
        self._writer.hasten(synced=False)

    def confirm(self, lane: Lane, ranges: Ranges) -> None:
        """Forget those numbers."""
        self._index.confirm(lane, ranges)

    def unconfirmed(self) -> Mapping[Lane, Ranges]:
        """Return the numbers that are not confirmed."""
        return {lane: numbers.ranges for lane, numbers in self._index.unconfirmed().items()}

    def covers(self, lane: Lane, first: int, last: int) -> bool:
        """Say whether those numbers are in the journal, and not confirmed."""
        return self._index.covers(lane, first, last)

    def highest(self) -> Mapping[Lane, int]:
        """Return the highest number met, per lane."""
        return self._index.highest()

    def pending(self) -> Sequence[int]:
        """Return the marks of pending entries."""
        return self._index.pending()

    def held(self) -> Mapping[HeldKey, tuple[int, int]]:
        """Return the reservations."""
        return self._index.held()

    async def read(self, marks: Sequence[int]) -> list[Stored]:
        """Return the entries with these marks."""
        found: list[Stored] = []
        met: set[tuple[int, str | None]] = set()
        for name, wanted in self._index.segments_of(list(marks)).items():
            for stored in await self._apart(partial(self._load, marks=frozenset(wanted)), name):
                name_of = (stored.mark, stored.entry.operation.operation_id)
                # A segment written anew may hold an entry twice.
                if stored.mark in wanted and name_of not in met:
                    met.add(name_of)
                    found.append(stored)
        for mark, count in Counter(stored.mark for stored in found).items():
            if count > 1:
                self._read.setdefault(mark, count)
        return sorted(found, key=lambda each: each.mark)

    async def placed(self, wanted: Mapping[Lane, Ranges]) -> AsyncIterator[Sequence[Stored]]:
        """Iterate over PLACED entries with one of these numbers."""
        for name in self._index.segments_with(wanted):
            chosen = partial(self._load, chosen=lambda _, entry: _meets(entry, wanted))
            some = await self._apart(chosen, name)
            for start in range(0, len(some), CHUNK_MAX):
                yield some[start : start + CHUNK_MAX]

    def _load(
        self,
        name: str,
        *,
        marks: AbstractSet[int] | None = None,
        chosen: Callable[[int, Entry], bool] = lambda _, __: True,
    ) -> list[Stored]:
        """Return those entries of a segment; what cannot be read was told when it was opened.

        The others are dropped as they are met: a whole segment's would be many times its size.
        """
        try:
            data = self._files.read(name)
        except OSError:
            self._observer.failed("broken")
            return []
        stored: list[Stored] = []
        for mark, start, end in walk(data, self._salt):
            if marks is not None and mark not in marks:
                continue
            try:
                item = decode(data[start + RECORD_BYTES : end])
            except ValueError:
                continue
            match item:
                case Entry():
                    stored += [Stored(mark, each) for each in each_of(item) if chosen(mark, each)]
                case Batch(placed):
                    every = (each for entry in placed for each in each_of(entry))
                    stored += [Stored(mark, each) for each in every if chosen(mark, each)]
                case Group() if marks is not None:
                    stored += [Stored(mark, each) for each in item.entries()]
                case _:
                    pass
        return stored

    async def tidy(self) -> None:
        """Give back the space of what is not needed."""
        if not self._options.threaded:
            self._writer.step()
        self._index.clear(time.time_ns() // 1000)
        await self._carry()
        for name in self._index.free():
            await self._apart(self._files.remove, name)

    async def _carry(self) -> None:
        """Write the little that is needed of the oldest segment anew, when much lies behind it."""
        oldest = self._index.oldest()
        if oldest is None or self._refusal():
            return
        name, size_bytes, needed = oldest
        behind = self._index.size_bytes - size_bytes
        little = needed * ENTRY_BYTES * CARRY_SHARE < size_bytes
        if not needed or not little or behind < CARRY_BEHIND * size_bytes:
            return
        mark, held = 0, self._index.held()
        for stored in await self._apart(partial(self._load, chosen=self._index.needs), name):
            entry = stored.entry
            # It may have been confirmed while the segment was read.
            if not self._index.needs(stored.mark, entry):
                continue
            if entry.kind is EntryKind.HELD:
                entry = replace(entry, expires_us=held[held_key(entry)][1])
            mark = self.append(entry)
            if not mark:
                return
        if mark and await self.reached(mark, 5.0, synced=True):
            self._index.drop(name)

    def size(self) -> JournalSize:
        """Return what the journal holds."""
        events, pending, held, size_bytes, since_us = self._index.measured()
        age_s = max(0.0, time.time_ns() / 1e9 - since_us / 1e6) if since_us else 0.0
        writer = self._writer
        return JournalSize(
            events, pending, held, size_bytes, age_s, writer.queued, writer.queued_bytes
        )

    async def close(self) -> None:
        """Write and sync what was taken; take nothing more."""
        if self._closed:
            return
        self._closed = True
        if self._options.threaded:
            await asyncio.to_thread(self._writer.close)
        else:
            self._writer.close()
        self._advance()
        for waiter in self._waiters:
            waiter.tell(False)
        self._files.close()


def _size(entry: Entry | Group | Batch) -> int:
    """Return about how many bytes it takes until it is synced."""
    match entry:
        case Entry():
            return ENTRY_BYTES + len(entry.operation.payload)
        case Group():
            return ENTRY_BYTES + len(entry.operation_ids) * ID_BYTES
        case Batch(placed):
            payloads = sum([len(each.operation.payload) for each in placed])
            return ENTRY_BYTES * len(placed) + payloads


def _meets(entry: Entry, wanted: Mapping[Lane, Ranges]) -> bool:
    if entry.kind is not EntryKind.PLACED:
        return False
    last = entry.first_seq + entry.operation.event_count - 1
    ranges = wanted.get((entry.source_id, entry.operation.shard), ())
    return any(first <= last and entry.first_seq <= end for first, end in ranges)


async def open_journal(
    files: Files, options: JournalOptions, observer: JournalObserver
) -> FileJournal:
    """Return the journal of a folder, with all that can be read of it. Raises OSError."""
    found = (
        await asyncio.to_thread(recover, files, observer.damaged)
        if options.threaded
        else recover(files, observer.damaged)
    )
    return FileJournal(files, options, observer, found)
