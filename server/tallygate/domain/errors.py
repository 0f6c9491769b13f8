"""The tree of errors. The docstring of an error is its message; `transient` is a fact about it.

Guarantees: every error a caller can meet is a `TallygateError` with a stable `reason`.
Refuses to know: status codes, which live at the edge in `api/status.py`.
"""

from dataclasses import dataclass
from typing import ClassVar


class TallygateError(Exception):
    """Something went wrong."""

    reason: ClassVar[str] = "INTERNAL"
    transient: ClassVar[bool] = False

    def __init__(
        self,
        detail: str | None = None,
        *,
        field: str = "",
        retry_after_us: int | None = None,
    ) -> None:
        # An interpreter told to drop docstrings (`-OO`) leaves the reason alone.
        message = detail or (self.__doc__ or self.reason).partition("\n")[0]
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_us = retry_after_us


class InvalidField(TallygateError):
    """A field is missing, malformed or out of range."""

    reason = "INVALID_FIELD"


class TooManyItems(InvalidField):
    """The list holds more items than one call may carry."""

    reason = "TOO_MANY_ITEMS"


class EventTimeInFuture(InvalidField):
    """The event's time is more than five minutes ahead of the service's clock."""

    reason = "EVENT_TIME_IN_FUTURE"


class OperationIdReused(InvalidField):
    """The operation id was used before with other content."""

    reason = "OPERATION_ID_REUSED"


class EventTimeTooOld(TallygateError):
    """The event is older than its meter's late horizon; it is kept as rejected."""

    reason = "EVENT_TIME_TOO_OLD"


class UnknownMeter(TallygateError):
    """The catalog has no such meter."""

    reason = "UNKNOWN_METER"


class UnknownTenant(TallygateError):
    """The catalog has no such tenant, and no default plan."""

    reason = "UNKNOWN_TENANT"


class TooManyLimits(TallygateError):
    """The call would count against more limits than one decision may hold."""

    reason = "TOO_MANY_LIMITS"


class CounterOverflow(TallygateError):
    """A counter would pass 2^53 - 1, past which it could not be exact."""

    reason = "COUNTER_OVERFLOW"


class DurabilityNotOffered(TallygateError):
    """The asked durability is not offered by this installation."""

    reason = "DURABILITY_NOT_OFFERED"


class NotFound(TallygateError):
    """What was asked for does not exist."""

    reason = "NOT_FOUND"


class TenantSuspended(TallygateError):
    """The tenant, or one above it, is suspended."""

    reason = "TENANT_SUSPENDED"


class ReservationNotFound(NotFound):
    """There is no such reservation, or it was resolved too long ago to be known."""

    reason = "RESERVATION_NOT_FOUND"


class TooManyReservations(TallygateError):
    """The tenant holds as many reservations as it may; settle or release some."""

    reason = "TOO_MANY_RESERVATIONS"


class EventNotFound(NotFound):
    """The event is not known here, or is too old to be refunded by this call."""

    reason = "EVENT_NOT_FOUND"


class RefundTooLarge(TallygateError):
    """The refund is more than the event has left to refund."""

    reason = "REFUND_TOO_LARGE"


class Unauthenticated(TallygateError):
    """Who calls has not proven who it is."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(TallygateError):
    """Who calls may not do this, or not for this tenant or meter."""

    # Told before anything is looked up: the reply is the same whether or not it exists.
    reason = "PERMISSION_DENIED"


class RoleLacking(PermissionDenied):
    """The caller has no role that may do this."""

    reason = "ROLE_LACKING"


class TokenMissing(Unauthenticated):
    """The call carries no bearer token: send `authorization: Bearer TOKEN`."""

    reason = "TOKEN_MISSING"


class TokenExpired(Unauthenticated):
    """The token's time is over; get a new one."""

    reason = "TOKEN_EXPIRED"


class CatalogConflict(TallygateError):
    """The catalog was changed by somebody else meanwhile."""

    reason = "CATALOG_CONFLICT"


class BackendUnavailable(TallygateError):
    """Redis or Postgres did not answer; retry with the same operation id."""

    reason = "BACKEND_UNAVAILABLE"
    transient = True


class NotAsked(BackendUnavailable):
    """Redis does not answer and was not asked; nothing was charged."""


class CatalogNotLoaded(BackendUnavailable):
    """No catalog has been published yet."""

    reason = "CATALOG_NOT_LOADED"


class Overloaded(TallygateError):
    """More work is waiting than the service bounds itself to."""

    reason = "OVERLOADED"
    transient = True


class JournalInUse(TallygateError):
    """Another process has the journal of this data folder."""

    reason = "INVALID_FIELD"


class NotDurable(BackendUnavailable):
    """Accepted, but not as durably as asked for in time; a retry tells."""


class Draining(Overloaded):
    """The service is stopping; retry with the same operation id."""


class DeadlineTooShort(TallygateError):
    """The deadline left no time to decide; nothing was charged."""

    reason = "DEADLINE_TOO_SHORT"


class RollupsIncomplete(TallygateError):
    """The meter's rollups do not have all of the window yet: they are being made anew."""

    reason = "ROLLUPS_INCOMPLETE"


class StorageFault(TallygateError):
    """A stored value is not what it must be; an operator has to look at it."""

    reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a document: its line from 1 (0 for none), its path, what is wrong, a guess."""

    line: int
    path: str
    message: str
    suggestion: str = ""


class CatalogInvalid(TallygateError):
    """The catalog document has faults."""

    reason = "CATALOG_INVALID"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"the catalog document has {len(faults)} fault(s)")
        self.faults = faults
