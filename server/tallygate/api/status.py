"""The one table from errors to status codes, and the details that an error carries.

Guarantees: every status has an `ErrorInfo` with domain `tallygate`; what is unexpected reaches the
caller as `INTERNAL` with a reference id, never with its text.
Refuses to know: which call failed.
"""

import random
import secrets
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tallygate.domain.errors import CatalogInvalid, TallygateError
from tallygate.gen.v1 import reason_pb2

DOMAIN: Final = "tallygate"
# Long enough that a retry meets a server that has had time to breathe, short enough for a caller.
RETRY_AFTER_US: Final = 200_000
REFERENCE_BYTES: Final = 8
VIOLATIONS_MAX: Final = 50

CODES: Final = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "OPERATION_ID_REUSED": grpc.StatusCode.INVALID_ARGUMENT,
    "EVENT_TIME_IN_FUTURE": grpc.StatusCode.INVALID_ARGUMENT,
    "EVENT_TIME_TOO_OLD": grpc.StatusCode.OUT_OF_RANGE,
    "UNKNOWN_METER": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_TENANT": grpc.StatusCode.NOT_FOUND,
    "TOO_MANY_ITEMS": grpc.StatusCode.INVALID_ARGUMENT,
    "TOO_MANY_LIMITS": grpc.StatusCode.FAILED_PRECONDITION,
    "DURABILITY_NOT_OFFERED": grpc.StatusCode.FAILED_PRECONDITION,
    "BACKEND_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "OVERLOADED": grpc.StatusCode.UNAVAILABLE,
    "DEADLINE_TOO_SHORT": grpc.StatusCode.DEADLINE_EXCEEDED,
    "CATALOG_NOT_LOADED": grpc.StatusCode.UNAVAILABLE,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CATALOG_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "CATALOG_CONFLICT": grpc.StatusCode.ABORTED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "MALFORMED_MESSAGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MESSAGE_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "UNKNOWN_METHOD": grpc.StatusCode.UNIMPLEMENTED,
    "COUNTER_OVERFLOW": grpc.StatusCode.OUT_OF_RANGE,
    "CANCELLED": grpc.StatusCode.CANCELLED,
    "TENANT_SUSPENDED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TOO_MANY_RESERVATIONS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "EVENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "REFUND_TOO_LARGE": grpc.StatusCode.FAILED_PRECONDITION,
    "ROLLUPS_INCOMPLETE": grpc.StatusCode.FAILED_PRECONDITION,
    "PERIOD_STATE": grpc.StatusCode.FAILED_PRECONDITION,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "TOKEN_MISSING": grpc.StatusCode.UNAUTHENTICATED,
    "TOKEN_EXPIRED": grpc.StatusCode.UNAUTHENTICATED,
    "ROLE_LACKING": grpc.StatusCode.PERMISSION_DENIED,
}


class MalformedMessage(TallygateError):
    """The message could not be decoded."""

    reason = "MALFORMED_MESSAGE"


class MessageTooLarge(TallygateError):
    """The message is larger than the service accepts."""

    reason = "MESSAGE_TOO_LARGE"


class UnknownMethod(TallygateError):
    """The method does not exist here."""

    reason = "UNKNOWN_METHOD"


class DeadlinePassed(TallygateError):
    """The service's own deadline passed before the reply; retry with the same operation id."""

    reason = "DEADLINE_TOO_SHORT"


class Unexpected(TallygateError):
    """Something unexpected happened; the logs know it by its reference."""

    reason = "INTERNAL"

    def __init__(self) -> None:
        self.reference = secrets.token_hex(REFERENCE_BYTES)
        super().__init__(f"internal error, reference {self.reference}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status as the transport sends it."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def shown(error: BaseException) -> TallygateError:
    """Return the error that a caller may see: itself if it is ours to show, else a reference."""
    if isinstance(error, TallygateError) and error.reason != "INTERNAL":
        return error
    return error if isinstance(error, Unexpected) else Unexpected()


def refusal(error: TallygateError) -> Refusal:
    """Return the status of an error that may be shown, with its details and pushback."""
    code = CODES[error.reason]
    retry_us = _retry_after_us(error)
    status = status_pb2.Status(code=code.value[0], message=error.message)
    for detail in _details(error, retry_us):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString())
    ]
    if code is grpc.StatusCode.UNAVAILABLE:
        trailers.append(("grpc-retry-pushback-ms", str(retry_us // 1000)))
    return Refusal(code, error.message, tuple(trailers))


def item_error(error: TallygateError) -> reason_pb2.ItemError:
    """Return an error as one item's of a list."""
    code = CODES[error.reason]
    item = reason_pb2.ItemError(
        reason=reason_pb2.Reason.Value(f"REASON_{error.reason}"),
        code=code.value[0],
        message=error.message,
        field=error.field,
    )
    if code is grpc.StatusCode.UNAVAILABLE:
        item.retry_after.FromMicroseconds(_retry_after_us(error))
    return item


def _details(error: TallygateError, retry_us: int) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if isinstance(error, Unexpected):
        info.metadata["reference"] = error.reference
    details: list[Message] = [info]
    violations = [(error.field, error.message)] if error.field else []
    if isinstance(error, CatalogInvalid):
        violations = [
            (fault.path, f"line {fault.line}: {fault.message}")
            for fault in error.faults[:VIOLATIONS_MAX]
        ]
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    if CODES[error.reason] is grpc.StatusCode.UNAVAILABLE:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMicroseconds(retry_us)
        details.append(retry)
    return details


def _retry_after_us(error: TallygateError) -> int:
    """Return when to come back: as the error says, or half to one and a half of the usual time.

    Callers who failed at one moment would otherwise all come back at one moment.
    """
    if error.retry_after_us is not None:
        return error.retry_after_us
    return int(RETRY_AFTER_US * (0.5 + random.random()))  # noqa: S311  spreads, hides nothing
