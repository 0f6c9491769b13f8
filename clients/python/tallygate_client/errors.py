"""What may go wrong, told apart by what a caller can do about it.

A refusal is no error but a `Decision`; only the helpers that run work under a reservation raise
`QuotaExceeded`. No message holds a secret: each is what the service or gRPC said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from .results import Decision

DOMAIN: Final = "tallygate"
DETAILS_KEY: Final = "grpc-status-details-bin"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


class TallygateError(Exception):
    """A call was not served.

    Attributes:
        code: the gRPC status, as `INVALID_ARGUMENT`.
        reason: why, as in `tallygate.v1.Reason` without its prefix; empty where no service said.
        message: what is wrong, for a person.
        field: the path of the field at fault, as `items[0].meter`; empty where no field is.
        retry_after: seconds until another try can help; None where nobody knows.
        operation_id: the id of the logical call, to ask again with.
    """

    code: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        field: str = "",
        retry_after: float | None = None,
        operation_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.operation_id = operation_id

    def __str__(self) -> str:
        named = f"{self.field}: {self.message}" if self.field else self.message
        return f"{self.code} {self.reason}: {named}" if self.reason else f"{self.code}: {named}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross processes in job queues; keyword-only fields do not travel by themselves.
        return (_revive, (type(self), self.args, self.__dict__.copy()))


class InvalidRequest(TallygateError):
    """The request is at fault; `field` names where. Do not retry."""

    code = "INVALID_ARGUMENT"


class Unavailable(TallygateError):
    """The sidecar or what it needs did not answer; ask again with the same `operation_id`."""

    code = "UNAVAILABLE"


class DeadlineExceeded(TallygateError):
    """No answer in time. It may have been served: ask again with the same `operation_id`."""

    code = "DEADLINE_EXCEEDED"


class Unauthenticated(TallygateError):
    """The caller has not proven who it is."""

    code = "UNAUTHENTICATED"


class PermissionDenied(TallygateError):
    """The caller may not do this, or not for this tenant or meter."""

    code = "PERMISSION_DENIED"


class NotFound(TallygateError):
    """The meter, tenant, reservation or event does not exist."""

    code = "NOT_FOUND"


class FailedPrecondition(TallygateError):
    """Not in this state of things, as for a suspended tenant. Change that first."""

    code = "FAILED_PRECONDITION"


class ResourceExhausted(TallygateError):
    """A bound of the service is reached, as on open reservations or on a message's size."""

    code = "RESOURCE_EXHAUSTED"


class Internal(TallygateError):
    """Something unexpected; the message holds a reference that the service's logs know."""

    code = "INTERNAL"


class Cancelled(TallygateError):
    """The caller cancelled the call itself. It may have been served."""

    code = "CANCELLED"


class QuotaExceeded(TallygateError):
    """A helper was refused what its work needs; `decision` says by which limit."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, decision: Decision) -> None:
        super().__init__(
            f"refused by limit {decision.refused_by!r}",
            reason="QUOTA_EXCEEDED",
            retry_after=decision.retry_after,
            operation_id=decision.operation_id,
        )
        self.decision = decision


class BufferFull(TallygateError):
    """The buffer holds as much as it may; the event was not taken."""

    code = "RESOURCE_EXHAUSTED"


class SpoolInUse(TallygateError):
    """Another process, or another client of this one, holds the spool's directory."""

    code = "FAILED_PRECONDITION"


class SpoolFailed(TallygateError):
    """The disk refused what the spool wrote; the event was not taken."""

    code = "UNAVAILABLE"


class Closed(TallygateError):
    """The client was closed."""

    code = "FAILED_PRECONDITION"


KINDS: Final[Mapping[str, type[TallygateError]]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ALREADY_EXISTS": FailedPrecondition,
    "ABORTED": FailedPrecondition,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
}
CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


def invalid(field: str, message: str) -> InvalidRequest:
    """Refuse a field before anything is sent, in the words in which the service would."""
    return InvalidRequest(message, reason="INVALID_FIELD", field=field)


def error_of(
    code: str, message: str, *, reason: str = "", field: str = "", retry_after: float | None = None
) -> TallygateError:
    """Return the error of a status."""
    kind = KINDS.get(code, Internal)
    return kind(message, code=code, reason=reason, field=field, retry_after=retry_after)


def error_of_call(call: grpc.RpcError, operation_id: str = "") -> TallygateError:
    """Return the error of a call that ended with a status, its details read from the trailers."""
    status: Any = call
    trailers = dict(status.trailing_metadata() or ())
    error = error_of(status.code().name, status.details() or "")
    error.operation_id = operation_id
    _add_details(error, trailers.get(DETAILS_KEY))
    if error.retry_after is None:
        error.retry_after = pushback_s(trailers.get(PUSHBACK_KEY))
    return error


def pushback_s(value: str | bytes | None) -> float | None:
    """Read a pushback's milliseconds; None for none, and for one that says not to retry."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return int(text) / 1_000 if text and text.isdecimal() else None


def _add_details(error: TallygateError, packed: str | bytes | None) -> None:
    if not isinstance(packed, bytes):
        return
    try:
        status = status_pb2.Status.FromString(packed)
        for detail in status.details:
            _add_detail(error, detail)
    except Exception:  # noqa: BLE001  # an answer from elsewhere may hold anything at all
        return


def _add_detail(error: TallygateError, detail: Any) -> None:
    if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
        told = error_details_pb2.ErrorInfo.FromString(detail.value)
        if told.domain == DOMAIN:
            error.reason = told.reason
    elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
        faults = error_details_pb2.BadRequest.FromString(detail.value).field_violations
        error.field = faults[0].field if faults else ""
    elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
        delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
        error.retry_after = delay.seconds + delay.nanos / 1e9


def _revive(
    kind: type[TallygateError], args: tuple[Any, ...], state: dict[str, Any]
) -> TallygateError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
