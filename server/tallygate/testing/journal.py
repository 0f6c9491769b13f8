"""A journal in memory, over a disk that tests fill, break and lose.

Guarantees: passes the same contract tests as the journal on disk; what is synced outlives the
journal in its `FakeDisk`, what is not is lost with `lose_power`.
Refuses to know: bytes.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tallygate.domain.ids import ReservationId
from tallygate.domain.numbers import Numbers
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


@dataclass(slots=True)
class FakeDisk:
    """What was written, in order, of which the first `synced` survive a loss of power."""

    stored: list[Stored] = field(default_factory=list)
    synced: int = 0
    gone: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    next_mark: int = 1
    failing: bool = False

    def lose_power(self) -> None:
        """Lose what was not synced."""
        del self.stored[self.synced :]


class FakeJournal:
    """The `Journal` port over a disk in memory. Entries are written at once, synced when asked."""

    def __init__(self, disk: FakeDisk) -> None:
        self._disk = disk
        self._numbers: dict[Lane, Numbers] = {}
        self._highest: dict[Lane, int] = {}
        # The entries of each mark, and how many of a group that was read are not resolved.
        self._pending: dict[int, list[Entry]] = {}
        self._read: dict[int, int] = {}
        self._held: dict[HeldKey, tuple[int, int]] = {}
        self._closed = False
        for stored in disk.stored:
            self._index(stored.mark, stored.entry)

    @property
    def taking(self) -> bool:
        """Whether entries are taken."""
        return not (self._disk.failing or self._closed)

    @property
    def newest(self) -> int:
        """The mark of what was taken last."""
        return self._disk.next_mark - 1

    def append(self, entry: Entry | Group | Batch) -> int:
        """Take an entry."""
        if not self.taking:
            return 0
        mark = self._disk.next_mark
        self._disk.next_mark += 1
        for each in _each(entry):
            self._disk.stored.append(Stored(mark, each))
            self._index(mark, each)
        return mark

    def when(
        self, mark: int, timeout_s: float, then: Callable[[bool], None], *, synced: bool
    ) -> None:
        """Sync where asked; tell at once whether the disk has the entry."""
        del timeout_s
        then(self._has(mark, synced))

    def _index(self, mark: int, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.PLACED:
                lane = (entry.source_id, entry.operation.shard)
                last = entry.first_seq + entry.operation.event_count - 1
                self._numbers.setdefault(lane, Numbers()).add(entry.first_seq, last)
                self._highest[lane] = max(last, self._highest.get(lane, 0))
            case EntryKind.PENDING if mark not in self._disk.gone:
                self._pending.setdefault(mark, []).append(entry)
            case EntryKind.HELD if mark not in self._disk.released:
                self._held[_key(entry)] = (mark, entry.expires_us)
            case EntryKind.EXTENDED if _key(entry) in self._held:
                self._held[_key(entry)] = (self._held[_key(entry)][0], entry.expires_us)
            case _:
                return

    async def reached(self, mark: int, timeout_s: float, *, synced: bool) -> bool:
        """Sync where asked; say whether the disk has the entry."""
        del timeout_s
        return self._has(mark, synced)

    def _has(self, mark: int, synced: bool) -> bool:
        if synced and not self._disk.failing:
            self._disk.synced = len(self._disk.stored)
        known = self._disk.stored[: self._disk.synced] if synced else self._disk.stored
        return any(stored.mark >= mark for stored in known)

    def resolve(self, *marks: int) -> None:
        """Forget PENDING entries."""
        for mark in marks:
            left = self._read.get(mark, 1) - 1
            if left:
                self._read[mark] = left
                continue
            self._pending.pop(mark, None)
            self._disk.gone.add(mark)

    def release(self, key: HeldKey) -> None:
        """Forget a reservation."""
        if self._held.pop(key, None) is not None:
            of_it = (each for each in self._disk.stored if _key(each.entry) == key)
            self._disk.released.update(each.mark for each in of_it)

    def confirm(self, lane: Lane, ranges: Ranges) -> None:
        """Forget those numbers."""
        for first, last in ranges if lane in self._numbers else ():
            self._numbers[lane].remove(first, last)

    def covers(self, lane: Lane, first: int, last: int) -> bool:
        """Say whether those numbers are here, and not confirmed."""
        return lane in self._numbers and self._numbers[lane].covers(first, last)

    def unconfirmed(self) -> Mapping[Lane, Ranges]:
        """Return the numbers that are not confirmed."""
        return {lane: numbers.ranges for lane, numbers in self._numbers.items() if numbers}

    def highest(self) -> Mapping[Lane, int]:
        """Return the highest number met, per lane."""
        return dict(self._highest)

    def pending(self) -> Sequence[int]:
        """Return the marks of pending entries."""
        return sorted(self._pending)

    def held(self) -> Mapping[HeldKey, tuple[int, int]]:
        """Return the reservations."""
        return dict(self._held)

    async def read(self, marks: Sequence[int]) -> list[Stored]:
        """Return the entries with these marks."""
        needed = {*self._pending, *(mark for mark, _ in self._held.values())}
        found = [each for each in self._disk.stored if each.mark in needed.intersection(marks)]
        for mark, count in Counter(each.mark for each in found).items():
            self._read.setdefault(mark, count)
        return found

    async def placed(self, wanted: Mapping[Lane, Ranges]) -> AsyncIterator[Sequence[Stored]]:
        """Iterate over PLACED entries with one of these numbers."""
        found = [
            Stored(stored.mark, each)
            for stored in self._disk.stored
            if _meets(stored.entry, wanted)
            for each in each_of(stored.entry)
            if _meets(each, wanted)
        ]
        if found:
            yield found

    async def tidy(self) -> None:
        """Do nothing: memory is not given back."""

    def size(self) -> JournalSize:
        """Return what the journal holds; no bytes, as there are none."""
        events = sum(len(numbers) for numbers in self._numbers.values())
        pending = sum(map(len, self._pending.values()))
        return JournalSize(events, pending, len(self._held))

    async def close(self) -> None:
        """Sync what was taken; take nothing more."""
        self._closed = True
        if not self._disk.failing:
            self._disk.synced = len(self._disk.stored)


def _each(entry: Entry | Group | Batch) -> Iterable[Entry]:
    match entry:
        case Group():
            return entry.entries()
        case Batch(placed):
            return placed
        case Entry():
            return (entry,)


def _key(entry: Entry) -> HeldKey:
    reservation_id: ReservationId = getattr(
        entry.operation.detail, "reservation_id", ReservationId("")
    )
    return entry.operation.tenant_id, reservation_id


def _meets(entry: Entry, wanted: Mapping[Lane, Ranges]) -> bool:
    last = entry.first_seq + entry.operation.event_count - 1
    ranges = wanted.get((entry.source_id, entry.operation.shard), ())
    placed = entry.kind is EntryKind.PLACED
    return placed and any(first <= last and entry.first_seq <= end for first, end in ranges)
