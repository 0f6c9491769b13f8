"""The seam of the journal: what a sidecar has accepted and the ledger has not confirmed.

Guarantees: the port has a fake in `testing/` that passes the same tests as the journal on disk.
Refuses to know: files, threads, and what is handed in again when.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from tallygate.domain.alike import Alike
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.given import calls_of
from tallygate.domain.ids import AccountId, OperationId, ReservationId, SourceId, TenantId
from tallygate.domain.quick import quick
from tallygate.ports.epochs import Ranges

Lane = tuple[SourceId, int]
"""A numbered source and its shard: whose numbers."""
Debit = tuple[AccountId, str, int]
"""Units that a grant took of a budget, by account and field."""
HeldKey = tuple[TenantId, ReservationId]


class EntryKind(StrEnum):
    """What an entry says of its operation: the letters are those on disk.

    PENDING: it was granted here, and the counters have yet to be told. PLACED: its events are in a
    shard's stream, under numbers. HELD: it made a reservation. EXTENDED: a reservation ends later.
    """

    PENDING = "p"
    PLACED = "s"
    HELD = "h"
    EXTENDED = "e"


@quick
@dataclass(frozen=True, slots=True)
class Entry:
    """An operation that was accepted at `at_us`, in the store's time. It is kept without charges.

    PLACED: `source_id` has numbered its `operation.event_count` events from `first_seq` on.
    PENDING: `debits` are of budgets. HELD and EXTENDED: `expires_us` is when the reservation ends.
    """

    kind: EntryKind
    operation: Operation
    at_us: int
    source_id: SourceId = SourceId("")
    first_seq: int = 0
    debits: tuple[Debit, ...] = ()
    expires_us: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Calls alike of a shard that were granted at `at_us`, in the store's time: all PENDING."""

    alike: Alike
    shard: int
    at_us: int
    operation_ids: tuple[OperationId, ...]

    def entries(self) -> Iterator[Entry]:
        """Iterate over the calls, each as an entry of its own."""
        alike = self.alike
        for of in self.operation_ids:
            operation = Operation(
                Mode.CONSUME,
                alike.tenant_id,
                self.shard,
                operation_id=of,
                fingerprint=alike.fingerprint(of),
                event_count=alike.event_count,
                payload=alike.payload(of),
            )
            yield Entry(EntryKind.PENDING, operation, self.at_us)


@dataclass(frozen=True, slots=True)
class Batch:
    """What the store has answered together: PLACED, each as an entry of its own."""

    placed: tuple[Entry, ...]


def each_of(entry: Entry) -> Iterator[Entry]:
    """Iterate over the calls that an entry's operation records, or over the entry alone."""
    first_seq, alone = entry.first_seq, True
    for of, fingerprint, count, payload in calls_of(entry.operation):
        operation = replace(
            entry.operation,
            mode=Mode.CONSUME,
            operation_id=of,
            fingerprint=fingerprint,
            event_count=count,
            event_time_us=0,
            payload=payload,
            detail=None,
        )
        yield replace(entry, operation=operation, first_seq=first_seq)
        first_seq, alone = first_seq + count, False
    if alone:
        yield entry


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry with its mark, which names it within the journal, or the group that it is of."""

    mark: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class JournalSize:
    """What the journal holds: events that the ledger may not have, and its size on disk.

    `pending` and `held` are operations. `oldest_s` is how long the oldest has been unconfirmed, at
    most. `queued` and `queued_bytes` are not written yet.
    """

    events: int = 0
    pending: int = 0
    held: int = 0
    size_bytes: int = 0
    oldest_s: float = 0.0
    queued: int = 0
    queued_bytes: int = 0


class Journal(Protocol):
    """What this sidecar has accepted, on its own disk. Nothing raises for a disk that fails."""

    @property
    def taking(self) -> bool:
        """Whether entries are taken: not while the disk is full or fails."""
        ...

    @property
    def newest(self) -> int:
        """The mark of what was taken last, 0 for nothing."""
        ...

    def append(self, entry: Entry | Group | Batch) -> int:
        """Take an entry, to be written soon; return its mark, rising from 1, or 0: not taken.

        The entries of a batch have one mark together.
        """
        ...

    def when(
        self, mark: int, timeout_s: float, then: Callable[[bool], None], *, synced: bool
    ) -> None:
        """Call `then` on the loop's thread as `reached` returns: at once where it is known."""
        ...

    async def reached(self, mark: int, timeout_s: float, *, synced: bool) -> bool:
        """Wait until the entry is written, or with `synced` on the disk for good; say if it is."""
        ...

    def resolve(self, *marks: int) -> None:
        """Forget PENDING entries: the counters have been told.

        A group that was read is forgotten once each of its entries is.
        """
        ...

    def release(self, key: HeldKey) -> None:
        """Forget a reservation: it was settled, or has ended."""
        ...

    def confirm(self, lane: Lane, ranges: Ranges) -> None:
        """Forget the PLACED events with these numbers: the ledger has them, or will by others."""
        ...

    def covers(self, lane: Lane, first: int, last: int) -> bool:
        """Say whether these numbers are written, and not confirmed."""
        ...

    def unconfirmed(self) -> Mapping[Lane, Ranges]:
        """Return the numbers that are not confirmed."""
        ...

    def highest(self) -> Mapping[Lane, int]:
        """Return the highest number that the journal has met, per lane."""
        ...

    def pending(self) -> Sequence[int]:
        """Return the marks of PENDING entries, rising."""
        ...

    def held(self) -> Mapping[HeldKey, tuple[int, int]]:
        """Return the mark of each HELD entry, and when its reservation ends in store time."""
        ...

    async def read(self, marks: Sequence[int]) -> list[Stored]:
        """Return the entries with these marks, but for those that cannot be read any more.

        A group is told as its entries.
        """
        ...

    def placed(self, wanted: Mapping[Lane, Ranges]) -> AsyncIterator[Sequence[Stored]]:
        """Iterate, in bounded lists, over PLACED entries with one of these numbers.

        What was recorded together is told call by call.
        """
        ...

    async def tidy(self) -> None:
        """Give back the space of what is confirmed, resolved and released."""
        ...

    def size(self) -> JournalSize:
        """Return what the journal holds."""
        ...

    async def close(self) -> None:
        """Write and sync what was taken; take nothing more."""
        ...
