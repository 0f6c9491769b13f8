"""The faults that a case sets on calls, and what the proxy took down of each attempt.

Owns which fault meets which attempt. Guarantees that a fault meets as many attempts of its method
as it says, in the order in which faults were set. Refuses to know gRPC servers and cases.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tallygate.gen.v1 import quota_pb2, reason_pb2, usage_pb2

REQUESTS: Final[Mapping[str, type[Message]]] = {
    "CheckAndConsume": quota_pb2.CheckAndConsumeRequest,
    "BatchCheckAndConsume": quota_pb2.BatchCheckAndConsumeRequest,
    "Check": quota_pb2.CheckRequest,
    "GetQuota": quota_pb2.GetQuotaRequest,
    "Reserve": quota_pb2.ReserveRequest,
    "Commit": quota_pb2.CommitRequest,
    "Release": quota_pb2.ReleaseRequest,
    "ExtendReservation": quota_pb2.ExtendReservationRequest,
    "Refund": quota_pb2.RefundRequest,
    "RecordUsage": usage_pb2.RecordUsageRequest,
    "BatchRecordUsage": usage_pb2.BatchRecordUsageRequest,
}

CODES: Final = {code.name: code for code in grpc.StatusCode}

ALWAYS: Final = 1_000_000
"""More attempts than any case has."""


@dataclass(slots=True)
class Fault:
    """What becomes of the next `times` attempts of a method; `*` is any method.

    `answer` is a status said without asking the sidecar; `lose` is one said after it has answered;
    `items` is one said of each item of a list, which the sidecar does not get; `delay_ms` waits
    before the sidecar is asked; `hang` never asks it, and never answers; `mute` asks it, and never
    answers; `cut` ends the connection once it has answered; `passes` lets attempts through.
    """

    call: str
    times: int = 1
    answer: str = ""
    lose: str = ""
    items: str = ""
    delay_ms: int = 0
    hang: bool = False
    mute: bool = False
    cut: bool = False
    passes: bool = False
    pushback_ms: int | None = None
    reason: str = ""
    field: str = ""
    retry_after_ms: int | None = None

    def __post_init__(self) -> None:
        assert self.call == "*" or self.call in REQUESTS, f"no method {self.call}"
        assert {self.answer, self.lose, self.items} - {""} <= set(CODES), self

    def trailers(self, code: str) -> list[tuple[str, str | bytes]]:
        """Return what goes with the status, as the sidecar would say it."""
        found: list[tuple[str, str | bytes]] = []
        if self.pushback_ms is not None:
            found.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
        if self.reason:
            found.append(("grpc-status-details-bin", self._details(code)))
        return found

    def item_errors(self, count: int) -> bytes:
        """Return the answer to a list of events, each of which is not accepted for now."""
        error = reason_pb2.ItemError(
            reason=reason_pb2.REASON_OVERLOADED,
            code=CODES[self.items].value[0],
            message=f"{self.items} by the proxy",
        )
        if self.retry_after_ms is not None:
            error.retry_after.FromMilliseconds(self.retry_after_ms)
        reply = usage_pb2.BatchRecordUsageResponse()
        for _ in range(count):
            reply.results.add(error=error)
        return reply.SerializeToString()

    def _details(self, code: str) -> bytes:
        status = status_pb2.Status(code=CODES[code].value[0], message=f"{code} by the proxy")
        told: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain="tallygate")]
        if self.field:
            bad = error_details_pb2.BadRequest()
            bad.field_violations.add(field=self.field, description="said by the proxy")
            told.append(bad)
        if self.retry_after_ms is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(self.retry_after_ms)
            told.append(retry)
        for each in told:
            packed = AnyMessage()
            packed.Pack(each)
            status.details.append(packed)
        return bytes(status.SerializeToString())


@dataclass(slots=True)
class Attempt:
    """One attempt as it came to the proxy. Times are those of the proxy's own clock."""

    method: str
    request: Message
    previous: int
    deadline_ms: int | None
    user_agent: str
    came_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None
    ended: str = ""

    def shown(self) -> dict[str, Any]:
        """Return it as cases ask about it."""
        requests = getattr(self.request, "requests", None)
        parts: Sequence[Any] = [self.request] if requests is None else list(requests)
        contexts = [each.context for each in parts if _has(each, "context")]
        return {
            "method": self.method,
            "previous": self.previous,
            "deadline_ms": self.deadline_ms,
            "user_agent": self.user_agent,
            "ended": self.ended,
            "size": len(parts),
            "tenant_id": _of(parts, "tenant_id"),
            "operation_id": _of(parts, "operation_id"),
            "event_id": _of(parts, "event_id"),
            "sdk": _of(contexts, "sdk"),
            "subject_id": _of(contexts, "subject_id"),
        }


def _has(message: Message, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name


def _of(parts: Sequence[Any], name: str) -> Any:
    """Return the field of one message, of several a list, of none that has it None."""
    found = [getattr(each, name) for each in parts if _has(each, name)]
    return found[0] if len(found) == 1 else (found or None)


@dataclass(slots=True)
class Faults:
    """The faults in force, in the order in which they were set."""

    waiting: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Have it meet attempts once those before it are used up."""
        self.waiting.append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        self.waiting.clear()

    def take(self, method: str) -> Fault | None:
        """Return the fault that meets this attempt, None if it is to pass."""
        for fault in self.waiting:
            if fault.call in ("*", method):
                fault.times -= 1
                if fault.times == 0:
                    self.waiting.remove(fault)
                return None if fault.passes else fault
        return None
