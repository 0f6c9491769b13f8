"""What of the journal is still needed, segment by segment; small, as numbers are held in ranges.

Guarantees: a segment is free only when all before it are: what resolves an entry lies behind it.
Both the loop's thread and the writer's may call, at any time.
Refuses to know: files.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tallygate.adapters.journal.entry_codec import Item, Released, Resolved
from tallygate.domain.ids import ReservationId
from tallygate.domain.numbers import Numbers
from tallygate.ports.epochs import Ranges
from tallygate.ports.journal import Batch, Entry, EntryKind, Group, HeldKey, Lane


@dataclass(slots=True)
class Part:
    """What one segment holds that is needed. `began_us` is when it was begun."""

    name: str
    size_bytes: int = 0
    began_us: int = 0
    lanes: dict[Lane, Numbers] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    held: set[HeldKey] = field(default_factory=set)

    @property
    def needed(self) -> bool:
        """Whether the ledger or the counters may miss something of it."""
        return bool(self.lanes or self.pending or self.held)


class Index:
    """Which entries are needed, and where they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: Final[list[Part]] = []
        self._pending: Final[dict[int, Part]] = {}
        # How many calls a pending group has beside its first.
        self._grouped: Final[dict[int, int]] = {}
        self._held: Final[dict[HeldKey, tuple[int, int, Part]]] = {}
        self._highest: Final[dict[Lane, int]] = {}
        self._clear_us = 0
        self.size_bytes = 0

    def begin(self, name: str, began_us: int = 0) -> None:
        """Let what is put next be in a new segment; without a time, its first entry tells it."""
        with self._lock:
            self._parts.append(Part(name, began_us=began_us))

    def abandon(self, name: str) -> None:
        """Forget the newest segment: what it held is put again into the next one."""
        with self._lock:
            assert self._parts[-1].name == name
            self.size_bytes -= self._parts.pop().size_bytes

    def drop(self, name: str) -> None:
        """Forget what was needed of the oldest segment: it was written anew."""
        with self._lock:
            if self._parts[0].name == name:
                self._parts[0].lanes.clear()

    def put(self, mark: int, item: Item) -> None:
        """Take in what was written to the newest segment."""
        with self._lock:
            part = self._parts[-1]
            match item:
                case Entry():
                    self._put(mark, item, part)
                case Batch(placed):
                    for each in placed:
                        self._put(mark, each, part)
                case Group():
                    part.began_us = part.began_us or item.at_us
                    self._pend(mark, part)
                    self._grouped[mark] = len(item.operation_ids) - 1
                case Resolved(marks):
                    for of in marks:
                        self._resolve(of)
                case Released(key):
                    self._release(key)

    def grew(self, size_bytes: int) -> None:
        """Let the newest segment be that much larger."""
        with self._lock:
            self._parts[-1].size_bytes += size_bytes
            self.size_bytes += size_bytes

    def resolve(self, *marks: int) -> None:
        """Forget pending entries."""
        with self._lock:
            for mark in marks:
                self._resolve(mark)

    def release(self, key: HeldKey) -> bool:
        """Forget a reservation; say whether it was known."""
        with self._lock:
            return self._release(key)

    def confirm(self, lane: Lane, ranges: Ranges) -> None:
        """Forget those numbers."""
        with self._lock:
            for part in self._parts:
                numbers = part.lanes.get(lane)
                if numbers is None:
                    continue
                for first, last in ranges:
                    numbers.remove(first, last)
                if not numbers:
                    del part.lanes[lane]

    def clear(self, now_us: int) -> None:
        """Note when nothing is needed, for the age of what comes next."""
        with self._lock:
            if not any(part.needed for part in self._parts):
                self._clear_us = now_us

    def unconfirmed(self) -> dict[Lane, Numbers]:
        """Return the numbers that are needed, over all segments."""
        found: dict[Lane, Numbers] = {}
        with self._lock:
            for part in self._parts:
                for lane, numbers in part.lanes.items():
                    into = found.setdefault(lane, Numbers())
                    for first, last in numbers.ranges:
                        into.add(first, last)
        return found

    def covers(self, lane: Lane, first: int, last: int) -> bool:
        """Say whether the newest segments hold all of those numbers."""
        with self._lock:
            return any(
                lane in part.lanes and part.lanes[lane].covers(first, last)
                for part in reversed(self._parts)
            )

    def highest(self) -> dict[Lane, int]:
        """Return the highest number met, per lane."""
        with self._lock:
            return dict(self._highest)

    def pending(self) -> list[int]:
        """Return the marks of pending entries, rising."""
        with self._lock:
            return sorted(self._pending)

    def held(self) -> dict[HeldKey, tuple[int, int]]:
        """Return the mark and the end of each reservation."""
        with self._lock:
            return {key: (mark, ends) for key, (mark, ends, _) in self._held.items()}

    def segments_of(self, marks: list[int]) -> dict[str, set[int]]:
        """Return which segments hold these marks of pending entries and reservations."""
        found: dict[str, set[int]] = {}
        with self._lock:
            held = {mark: part for mark, _, part in self._held.values()}
            for mark in marks:
                part = self._pending.get(mark) or held.get(mark)
                if part is not None:
                    found.setdefault(part.name, set()).add(mark)
        return found

    def segments_with(self, wanted: Mapping[Lane, Ranges]) -> list[str]:
        """Return the segments that hold one of those numbers, in order."""
        with self._lock:
            return [
                part.name
                for part in self._parts
                if any(
                    lane in part.lanes and part.lanes[lane].meets(first, last)
                    for lane, ranges in wanted.items()
                    for first, last in ranges
                )
            ]

    def free(self) -> list[str]:
        """Take off the oldest segments that are not needed, but for the newest; return them."""
        taken: list[str] = []
        with self._lock:
            while len(self._parts) > 1 and not self._parts[0].needed:
                part = self._parts.pop(0)
                self.size_bytes -= part.size_bytes
                taken.append(part.name)
        return taken

    def oldest(self) -> tuple[str, int, int] | None:
        """Return the oldest segment but the newest: its name, size, and what is needed of it.

        None for one with pending entries: these are handed over before long.
        """
        with self._lock:
            if len(self._parts) < 2 or self._parts[0].pending:
                return None
            part = self._parts[0]
            needed = len(part.held) + sum(len(each) for each in part.lanes.values())
            return part.name, part.size_bytes, needed

    def needs(self, mark: int, entry: Entry) -> bool:
        """Say whether the entry is needed where it was first written."""
        with self._lock:
            match entry.kind:
                case EntryKind.PLACED:
                    numbers = self._parts[0].lanes.get((entry.source_id, entry.operation.shard))
                    last = entry.first_seq + entry.operation.event_count - 1
                    return numbers is not None and numbers.meets(entry.first_seq, last)
                case EntryKind.HELD:
                    held = self._held.get(held_key(entry))
                    return held is not None and held[0] == mark
                case EntryKind.PENDING:
                    return mark in self._pending
                case EntryKind.EXTENDED:
                    return False

    def measured(self) -> tuple[int, int, int, int, int]:
        """Return events, pending, held, bytes, and since when, in µs, something is needed, or 0."""
        events = sum(len(each) for each in self.unconfirmed().values())
        with self._lock:
            began = next((part.began_us for part in self._parts if part.needed), 0)
            since_us = max(began, self._clear_us) if began else 0
            pending = len(self._pending) + sum(self._grouped.values())
            return events, pending, len(self._held), self.size_bytes, since_us

    def _put(self, mark: int, entry: Entry, part: Part) -> None:
        part.began_us = part.began_us or entry.at_us
        match entry.kind:
            case EntryKind.PLACED:
                lane = (entry.source_id, entry.operation.shard)
                last = entry.first_seq + entry.operation.event_count - 1
                numbers = part.lanes.get(lane)
                if numbers is None:
                    numbers = part.lanes[lane] = Numbers()
                numbers.add(entry.first_seq, last)
                if last > self._highest.get(lane, 0):
                    self._highest[lane] = last
            case EntryKind.PENDING:
                self._pend(mark, part)
            case EntryKind.HELD:
                key = held_key(entry)
                self._release(key)
                self._held[key] = (mark, entry.expires_us, part)
                part.held.add(key)
            case EntryKind.EXTENDED:
                key = held_key(entry)
                if key in self._held:
                    first, _, where = self._held[key]
                    self._held[key] = (first, entry.expires_us, where)

    def _pend(self, mark: int, part: Part) -> None:
        self._resolve(mark)
        self._pending[mark] = part
        part.pending.add(mark)

    def _resolve(self, mark: int) -> None:
        part = self._pending.pop(mark, None)
        self._grouped.pop(mark, None)
        if part is not None:
            part.pending.discard(mark)

    def _release(self, key: HeldKey) -> bool:
        found = self._held.pop(key, None)
        if found is not None:
            found[2].held.discard(key)
        return found is not None


def held_key(entry: Entry) -> HeldKey:
    """Return the reservation of a HELD or EXTENDED entry."""
    detail = entry.operation.detail
    reservation_id: ReservationId = getattr(detail, "reservation_id", ReservationId(""))
    return entry.operation.tenant_id, reservation_id
