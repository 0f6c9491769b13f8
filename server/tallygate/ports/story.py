"""The seam of explanation: all that is on record about one event.

Guarantees: nothing here changes anything.
Refuses to know: SQL, Redis, and how a story is told.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.event import RejectedEvent, UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId
from tallygate.ports.archive import ArchivedMonth


@dataclass(frozen=True, slots=True)
class Stored:
    """An event of the ledger, the partition it lies in, and whether its number is marked."""

    event: UsageEvent
    leaf: str
    numbered: bool


@dataclass(frozen=True, slots=True)
class Archived:
    """An event whose month was dropped: the ledger has its key, and its archive the rest."""

    tenant_id: TenantId
    event_id: EventId
    event_time_us: int
    month: ArchivedMonth


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rollup's bucket that an event is part of, with its totals."""

    kind: str
    bucket_us: int
    count: int
    sum: int


@dataclass(frozen=True, slots=True)
class RefundTold:
    """A refund of an event; `amount` is negative."""

    event_id: EventId
    amount: int
    operation_id: OperationId
    received_at_us: int


@dataclass(frozen=True, slots=True)
class Letter:
    """Why an event was refused though it is kept, and when; `stored_at_us` is the ledger's time."""

    rejected: RejectedEvent
    stored_at_us: int


@dataclass(frozen=True, slots=True)
class Told:
    """A message that tells of an event, on its way to one destination; none is empty."""

    message_id: str
    type: str
    created_at_us: int
    destination: str
    state: str
    attempt: int
    reason: str
    finished_at_us: int


@dataclass(frozen=True, slots=True)
class CorrectionTold:
    """What counters were due for an event: a copy's units taken back, or a late one's added.

    `number` is that of the copy, as SOURCE/SHARD/NUMBER; `outcome` is empty until it is made.
    """

    takes_back: bool
    epoch: str
    number: str
    outcome: str
    created_at_us: int
    finished_at_us: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in a shard's stream, that the ledger may not have yet."""

    event: UsageEvent
    entry_id: str
    rejected_for: str = ""


class EventRecords(Protocol):
    """What the ledger has on record of an event."""

    async def stored(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Stored]:
        """Return the events of this id: one per tenant at most."""
        ...

    async def archived(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Archived]:
        """Return where the events of this id are whose months were dropped."""
        ...

    async def letters(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Letter]:
        """Return the dead letters of this id."""
        ...

    async def buckets(
        self, tenant_id: TenantId, meter: MeterName, event_time_us: int
    ) -> Sequence[Bucket]:
        """Return the rollups that usage of that time is part of."""
        ...

    async def refunds(self, tenant_id: TenantId, event_id: EventId) -> Sequence[RefundTold]:
        """Return the refunds of an event, by time."""
        ...

    async def corrections(self, tenant_id: TenantId, event_id: EventId) -> Sequence[CorrectionTold]:
        """Return the corrections of counters that were due for an event, the oldest first."""
        ...

    async def told(self, event: UsageEvent) -> Sequence[Told]:
        """Return the messages that tell of an event, with their deliveries."""
        ...


class EventStreams(Protocol):
    """The streams, searched for an event."""

    async def waiting(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Waiting]:
        """Return where an event lies in the streams, all entries of all shards searched."""
        ...
