"""What callers ask for, checked, and what they are told.

Guarantees: a request that exists is within bounds; what is left to check needs the catalog.
Refuses to know: protos, and how decisions are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from tallygate.domain.decision import Decided, LimitReading
from tallygate.domain.event import NO_CONTEXT, EventContext
from tallygate.domain.ids import EventId, MeterName, OperationId, PlanName, TenantId

ITEMS_MAX: Final = 64
REQUESTS_MAX: Final = 1000
LIMITS_MAX: Final = 32


class Durability(IntEnum):
    """How safely an accepted event is held; the numbers are those of the proto."""

    UNSPECIFIED = 0
    BUFFERED = 1
    REDIS = 2
    JOURNAL = 3
    POSTGRES = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One use of one meter."""

    meter: MeterName
    amount: int
    dimensions: Mapping[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """Which limits to read; no meters means all. `dimensions` choose whose counters."""

    tenant_id: TenantId
    meters: tuple[MeterName, ...] = ()
    dimensions: Mapping[str, str] = field(default_factory=dict)


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
class ConsumeResult:
    """A decision as the caller is told it; `event_ids` are empty when refused."""

    decision: Decided
    event_ids: tuple[EventId, ...]
    durability: Durability


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

    readings: tuple[LimitReading, ...]
    plan: PlanName
    catalog_version: int


def event_id_of(operation_id: OperationId, index: int) -> EventId:
    """Return the id of an operation's item, which the caller can work out as well."""
    return EventId(f"{operation_id}:{index}")
