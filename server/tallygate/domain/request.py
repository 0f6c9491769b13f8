"""What callers ask for, checked, and what they are told.

Guarantees: a request that exists is within bounds; what is left to check needs the catalog.
Refuses to know: protos, and how decisions are made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from tallygate.domain.decision import Decided, LimitReading
from tallygate.domain.event import NO_CONTEXT, EventContext
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    PlanName,
    ReservationId,
    TenantId,
)
from tallygate.domain.quick import quick

ITEMS_MAX: Final = 64
REQUESTS_MAX: Final = 1000
TTL_DEFAULT_US: Final = 60_000_000
TTL_MIN_US: Final = 1_000
# A day: what is held longer is no work in progress any more.
TTL_MAX_US: Final = 86_400_000_000
LIMITS_MAX: Final = 32

_RESERVATION = re.compile(r"([0-9a-f]{2})-[\x21-\x7e]{1,128}")


class Durability(IntEnum):
    """How safely an accepted event is held; the numbers are those of the proto."""

    UNSPECIFIED = 0
    BUFFERED = 1
    REDIS = 2
    JOURNAL = 3
    POSTGRES = 4


@quick
@dataclass(frozen=True, slots=True)
class Item:
    """One use of one meter."""

    meter: MeterName
    amount: int
    dimensions: Mapping[str, str] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class ConsumeRequest:
    """A charge to decide. Its retries carry the same `operation_id`."""

    tenant_id: TenantId
    items: tuple[Item, ...]
    operation_id: OperationId
    context: EventContext = NO_CONTEXT
    min_durability: Durability = Durability.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A charge to try without charging."""

    tenant_id: TenantId
    items: tuple[Item, ...]
    context: EventContext = NO_CONTEXT


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """Which limits to read; no meters means all. `dimensions` choose whose counters."""

    tenant_id: TenantId
    meters: tuple[MeterName, ...] = ()
    dimensions: Mapping[str, str] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class UsageRequest:
    """One event to record. `event_time_us` 0 means now."""

    tenant_id: TenantId
    meter: MeterName
    amount: int
    event_id: EventId
    operation_id: OperationId
    event_time_us: int = 0
    dimensions: Mapping[str, str] = field(default_factory=dict)
    context: EventContext = NO_CONTEXT
    metadata_json: str = ""
    min_durability: Durability = Durability.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """Units to hold for `ttl_us`. Its retries carry the same `operation_id`."""

    tenant_id: TenantId
    items: tuple[Item, ...]
    operation_id: OperationId
    ttl_us: int = TTL_DEFAULT_US
    context: EventContext = NO_CONTEXT


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a reservation came to: one amount per item, none meaning what was reserved.

    With `record_excess`, what goes beyond is recorded whatever the limits say. Without `named` the
    operation id was made of the reservation's, and other amounts are no reuse of it.
    """

    tenant_id: TenantId
    reservation_id: ReservationId
    operation_id: OperationId
    amounts: tuple[int, ...] = ()
    record_excess: bool = False
    named: bool = True


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A reservation to give back."""

    tenant_id: TenantId
    reservation_id: ReservationId
    operation_id: OperationId


@dataclass(frozen=True, slots=True)
class ExtendRequest:
    """A reservation to keep for `ttl_us` from now."""

    tenant_id: TenantId
    reservation_id: ReservationId
    ttl_us: int = TTL_DEFAULT_US


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """An event to take back; `amount` 0 means all that is left of it."""

    tenant_id: TenantId
    event_id: EventId
    operation_id: OperationId
    amount: int = 0
    reason: str = ""


@quick
@dataclass(frozen=True, slots=True)
class ConsumeResult:
    """A decision as the caller is told it; `event_ids` are empty when refused."""

    decision: Decided
    event_ids: tuple[EventId, ...]
    durability: Durability


@quick
@dataclass(frozen=True, slots=True)
class RecordResult:
    """An event was accepted, now or before."""

    event_id: EventId
    replayed: bool
    durability: Durability
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class QuotaResult:
    """A tenant's limits as they stand."""

    readings: Sequence[LimitReading]
    plan: PlanName
    catalog_version: int


@dataclass(frozen=True, slots=True)
class ReserveResult:
    """A decision, and the reservation that it made; empty and 0 when refused."""

    decision: Decided
    reservation_id: ReservationId
    expires_us: int


class Resolution(StrEnum):
    """What became of a reservation."""

    COMMITTED = "COMMITTED"
    COMMITTED_PARTIALLY = "COMMITTED_PARTIALLY"
    RELEASED = "RELEASED"
    EXTENDED = "EXTENDED"
    ALREADY_COMMITTED = "ALREADY_COMMITTED"
    ALREADY_RELEASED = "ALREADY_RELEASED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class ResolveResult:
    """How a reservation was resolved. `unrecorded` is per item, of a partial commit only.

    `expires_us` is of an extension only.
    """

    resolution: Resolution
    readings: Sequence[LimitReading] = ()
    refused_by: LimitId | None = None
    unrecorded: tuple[int, ...] = ()
    event_ids: tuple[EventId, ...] = ()
    durability: Durability = Durability.UNSPECIFIED
    replayed: bool = False
    expires_us: int = 0


@dataclass(frozen=True, slots=True)
class RefundResult:
    """What was taken back: the negative event, its units above 0, the limits as they stand."""

    event_id: EventId
    amount: int
    durability: Durability
    replayed: bool
    readings: Sequence[LimitReading]


def reservation_id_of(shard: int, operation_id: OperationId) -> ReservationId:
    """Return the id of an operation's reservation.

    It tells the shard, as its tenant may have moved to another family meanwhile.
    """
    return ReservationId(f"{shard:02x}-{operation_id}")


def shard_of_reservation(reservation_id: ReservationId, shards: int) -> int | None:
    """Return where a reservation is, None for an id that is none of `reservation_id_of`."""
    found = _RESERVATION.fullmatch(reservation_id)
    shard = int(found[1], 16) if found else shards
    return shard if shard < shards else None


def event_id_of(operation_id: OperationId, index: int) -> EventId:
    """Return the id of an operation's item, which the caller can work out as well."""
    return EventId(f"{operation_id}:{index}")
