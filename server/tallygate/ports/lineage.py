"""The seam of lineage: from a rollup's bucket, or from a message, back to its events.

Guarantees: each answer is of one moment; events come in pages, in an order that depends on nothing
else.
Refuses to know: SQL, and how any of it is shown.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId
from tallygate.ports.archive import ArchivedMonth


class Grain(StrEnum):
    """How long a bucket is."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Whereabouts(StrEnum):
    """Where an event is that a message tells of."""

    LEDGER = "ledger"
    ARCHIVE = "archive"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class BucketAsked:
    """The bucket that an instant lies in, and its events after a place: time and id."""

    tenant_id: TenantId
    meter: MeterName
    grain: Grain
    at_us: int
    after: tuple[int, str] | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class BucketEvent:
    """An event of a bucket."""

    event_id: EventId
    amount: int
    event_time_us: int
    received_at_us: int
    operation_id: OperationId
    refund_of: EventId


@dataclass(frozen=True, slots=True)
class BucketLineage:
    """A bucket, what the ledger's events of it come to, and a page of these.

    `count` and `sum` are the rollup's, None where there is none; `events_count` leaves refunds
    out, as rollups do. Where the month was dropped, `archived` says where its events are.
    """

    bucket_us: int
    count: int | None
    sum: int | None
    events_count: int
    events_sum: int
    archived: ArchivedMonth | None
    events: Sequence[BucketEvent]
    more: bool


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """An event that a message tells of."""

    tenant_id: str
    event_id: str
    meter: str
    amount: int
    where: Whereabouts


@dataclass(frozen=True, slots=True)
class MessageDelivery:
    """A message on its way to one destination; `finished_at_us` is 0 until it is."""

    destination: str
    state: str
    attempt: int
    finished_at_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class MessageLineage:
    """A message, a page of the events that it tells of, and its deliveries.

    `traces` are the ids of the traces that have brought these, of those that were recorded.
    """

    message_id: str
    type: str
    about: str
    created_at_us: int
    events_count: int
    events: Sequence[MessageEvent]
    deliveries: Sequence[MessageDelivery]
    traces: tuple[str, ...] = ()


class LineageReads(Protocol):
    """Looks back from what was made of events to the events."""

    async def bucket(self, asked: BucketAsked) -> BucketLineage:
        """Return a bucket with a page of its events, by time and id."""
        ...

    async def message(self, message_id: str, skip: int, limit: int) -> MessageLineage | None:
        """Return a message with its events from a place on, None for one that is not there.

        Raises `InvalidField` for what is no message's id.
        """
        ...
