"""The seam between the flow and the counters.

Guarantees: a decision and its events are one step; what is read changes nothing.
Refuses to know: Redis, scripts and encodings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import EventId, OperationId, ReservationId, TenantId


@dataclass(frozen=True, slots=True)
class ReservationKey:
    """Which reservation, and where it is."""

    shard: int
    tenant_id: TenantId
    reservation_id: ReservationId


@dataclass(frozen=True, slots=True)
class OperationKey:
    """Which operation, where it is remembered, and which of its events is asked for."""

    shard: int
    tenant_id: TenantId
    operation_id: OperationId
    event_id: EventId


@dataclass(frozen=True, slots=True)
class Recorded:
    """The events that an operation has recorded, and the units refunded of the one asked for."""

    payload: bytes
    at_us: int
    refunded: int


class QuotaStore(Protocol):
    """Decides operations against counters and appends what it accepts to the stream, at once."""

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Return one outcome per operation, in order. Operations of one shard run in order.

        A `BackendUnavailable` in the place of an outcome says that this operation may or may not
        have been applied; asking again with the same operation id tells. Raises nothing.
        """
        ...

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands, None where none is known.

        Raises `BackendUnavailable`, and `StorageFault` for what cannot be read.
        """
        ...

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an operation's events while it is remembered, None after, or where it has none.

        Raises `BackendUnavailable`, and `StorageFault` for what cannot be read.
        """
        ...
