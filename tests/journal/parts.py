"""Entries, and disks that fail, for the tests of the journal."""

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tallygate.adapters.journal.files import AppendFile, Files
from tallygate.adapters.journal.journal import FileJournal, JournalOptions, open_journal
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Hold, Refund
from tallygate.domain.ids import (
    AccountId,
    EventId,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.ports.journal import Entry, EntryKind, Lane

SHARD = 3
SOURCE = SourceId("a1b2.e1")
LANE: Lane = (SOURCE, SHARD)
TENANT = TenantId("acme")
MIB = 1024 * 1024


def operation(name: str = "op", *, events: int = 1, payload: bytes = b"payload") -> Operation:
    """Return a record of so many events."""
    return Operation(
        Mode.RECORD,
        TENANT,
        SHARD,
        operation_id=OperationId(name),
        fingerprint="f" * 32,
        event_count=events,
        event_time_us=7,
        payload=payload,
    )


def placed(first: int, events: int = 1, payload: bytes = b"payload") -> Entry:
    """Return what the stream has under numbers from `first` on."""
    kept = operation(f"op-{first}", events=events, payload=payload)
    return Entry(EntryKind.PLACED, kept, 1_000 + first, SOURCE, first)


def pending(name: str = "op") -> Entry:
    """Return what the store has yet to be told."""
    debits = ((AccountId(TENANT), "cap", 5),)
    return Entry(EntryKind.PENDING, operation(name), 1_000, debits=debits)


def reservation(name: str = "r", ends_us: int = 9_000) -> Entry:
    """Return a reservation that ends then."""
    hold = Operation(
        Mode.RESERVE,
        TENANT,
        SHARD,
        operation_id=OperationId(name),
        payload=b"events",
        detail=Hold(ReservationId(name), 8_000),
    )
    return Entry(EntryKind.HELD, hold, 1_000, SOURCE, expires_us=ends_us)


def refund() -> Entry:
    """Return a refund, whose detail has to be kept."""
    taken = Operation(
        Mode.REFUND,
        TENANT,
        SHARD,
        operation_id=OperationId("back"),
        event_count=1,
        payload=b"negative",
        detail=Refund(EventId("op"), 2, 3, True),
    )
    return Entry(EntryKind.PLACED, taken, 1_000, SOURCE, 9)


@dataclass(slots=True)
class Heard:
    """Keeps what a journal tells."""

    damage: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    recoveries: int = 0
    syncs: int = 0

    def synced(self, seconds: float, entries: int) -> None:
        """Count it."""
        assert seconds >= 0
        assert entries > 0
        self.syncs += 1

    def failed(self, reason: str) -> None:
        """Keep it."""
        self.failures.append(reason)

    def recovered(self) -> None:
        """Count it."""
        self.recoveries += 1

    def damaged(self, kind: str, spans: int) -> None:
        """Add them up."""
        self.damage[kind] = self.damage.get(kind, 0) + spans

    def turned_away(self, reason: str, entries: int) -> None:
        """Keep it, once for each."""
        self.turned += [reason] * entries


@dataclass(slots=True)
class ShadowFile:
    """A file whose bytes are on the disk only once they are synced."""

    disk: "ShadowDisk"
    name: str

    def write(self, data: bytes) -> None:
        """Append the data, or as much as there is room for."""
        disk = self.disk
        room = disk.room()
        disk.contents[self.name] += data[: max(0, room)]
        if room < len(data):
            raise OSError(errno.ENOSPC, "no space left")
        disk.fail_now("write")

    def sync(self) -> None:
        """Make what was written durable, or drop it for good, as systems do when a sync fails."""
        try:
            self.disk.fail_now("sync")
        except OSError:
            self.disk.lost.add(self.name)
            raise
        if self.name not in self.disk.lost:
            self.disk.durable[self.name] = len(self.disk.contents[self.name])

    def cut(self, length: int) -> None:
        """Drop what lies beyond."""
        del self.disk.contents[self.name][length:]

    def close(self) -> None:
        """Let go of the file."""


@dataclass(slots=True)
class ShadowDisk:
    """A folder in memory. `failing` names the next calls that fail, with their errno."""

    contents: dict[str, bytearray] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    aside: dict[str, bytes] = field(default_factory=dict)
    bytes_max: int = 1 << 40
    failing: dict[str, int] = field(default_factory=dict)

    def room(self) -> int:
        """Return how many bytes more there is room for."""
        return self.bytes_max - sum(len(each) for each in self.contents.values())

    def fail_now(self, call: str) -> None:
        """Raise what that call has to fail with."""
        code = self.failing.get(call)
        if code is not None:
            raise OSError(code, f"{call} failed")

    def lose_power(self, kept: Sequence[float]) -> None:
        """Keep what was synced, and of what was not, a part from 0 to 1 of each file."""
        for (name, data), share in zip(self.contents.items(), kept, strict=False):
            durable = self.durable.get(name, 0)
            del data[durable + int((len(data) - durable) * share) :]

    def names(self) -> list[str]:
        """Return all names."""
        return sorted(self.contents)

    def create(self, name: str) -> AppendFile:
        """Make an empty file."""
        self.fail_now("create")
        assert name not in self.contents
        self.contents[name] = bytearray()
        return ShadowFile(self, name)

    def read(self, name: str) -> bytes:
        """Return a file."""
        return bytes(self.contents[name])

    def keep(self, name: str, data: bytes) -> None:
        """Keep it aside."""
        self.aside[name] = data

    def cut(self, name: str, length: int) -> None:
        """Drop what lies beyond."""
        del self.contents[name][length:]

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.contents.pop(name, None)

    def close(self) -> None:
        """Let go of the folder."""


@asynccontextmanager
async def opened(
    files: Files,
    heard: Heard | None = None,
    *,
    bytes_max: int = 64 * MIB,
    threaded: bool = False,
) -> AsyncIterator[FileJournal]:
    """Open a journal over files; close it at the end."""
    options = JournalOptions(bytes_max, threaded=threaded)
    journal = await open_journal(files, options, heard or Heard())
    try:
        yield journal
    finally:
        await journal.close()


async def synced(journal: FileJournal, *entries: Entry) -> list[int]:
    """Append entries and wait until the disk has them; return the marks of those it has."""
    marks = [journal.append(entry) for entry in entries]
    return [mark for mark in marks if mark and await journal.reached(mark, 5.0, synced=True)]


async def entries_of(journal: FileJournal) -> list[Entry]:
    """Return every entry that is not confirmed, resolved or released."""
    await asyncio.sleep(0)
    found = [
        stored.entry async for some in journal.placed(journal.unconfirmed()) for stored in some
    ]
    marks = [*journal.pending(), *(mark for mark, _ in journal.held().values())]
    return found + [stored.entry for stored in await journal.read(marks)]
