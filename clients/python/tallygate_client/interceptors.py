"""Interceptors for gRPC servers: what they are told, and how they refuse.

Guarantees that a refusal says in its details and trailers what HTTP says in headers. Refuses to
know handlers; `grpc_threads` and `grpc_asyncio` stand around those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from .metering.answers import Problem, problem_of
from .metering.fields import fields_of
from .metering.rules import Measured, Question, Rules
from .results import Decision

DETAILS_KEY = "grpc-status-details-bin"
# The fields' own names are not allowed in trailers.
TRAILER_PREFIX = "tallygate-"
Metadata = tuple[tuple[str, str | bytes], ...]

CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A call as the rules see it: its method's path, its metadata, and gRPC's own details."""

    method: str
    metadata: Mapping[str, str]
    native: Any

    def header(self, name: str) -> str | None:
        """Return what a key of the metadata says; None where it is absent."""
        return self.metadata.get(name.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRules(Rules[RpcCall]):
    """What interceptors are told besides.

    Attributes:
        messages: the meter of a call's messages, and what is reserved of it.
        count: which messages count.
        unauthenticated: whether a call without a tenant ends `UNAUTHENTICATED`.
    """

    messages: Measured | None = None
    count: Literal["sent", "received", "both"] = "sent"
    unauthenticated: bool = False

    def __post_init__(self) -> None:
        Rules.__post_init__(self)
        if self.mode == "consume" and self.messages is not None:
            raise ValueError("how many messages there are shows only after; it needs 'reserve'")

    @property
    def counted(self) -> Measured | None:
        """The messages of the call."""
        return self.messages

    @property
    def counts_sent(self) -> bool:
        """Whether messages to the client count."""
        return self.messages is not None and self.count != "received"

    @property
    def counts_received(self) -> bool:
        """Whether messages from the client count."""
        return self.messages is not None and self.count != "sent"

    def question_of(self, call: RpcCall) -> Question | None:
        """Return what to ask for a call; None where it is exempt, or costs nothing."""
        if self.exempt is not None and self.exempt(call):
            return None
        return self.question(call, self.tenant_of(call), self.cost_of(call))


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call that is not served ends."""

    code: grpc.StatusCode
    message: str
    trailers: Metadata


def call_of(details: grpc.HandlerCallDetails) -> RpcCall:
    """Return a call as the rules see it; binary metadata is left to its own details."""
    metadata = {
        key: value for key, value in details.invocation_metadata or () if isinstance(value, str)
    }
    return RpcCall(str(details.method), metadata, details)


def refusal_of(error: BaseException, rules: RpcRules) -> Refusal:
    """Return how a call ends that is not let through."""
    problem = problem_of(error, challenged=rules.unauthenticated)
    code = CODES.get(problem.status, grpc.StatusCode.INTERNAL)
    status = status_pb2.Status(code=code.value[0], message=problem.detail)
    for each in _details(problem):
        packed = Packed()
        packed.Pack(each)
        status.details.append(packed)
    told = standing(problem.decision) if problem.decision is not None else ()
    return Refusal(code, problem.detail, ((DETAILS_KEY, status.SerializeToString()), *told))


def standing(decision: Decision) -> Metadata:
    """Return the trailers that say where the tenant stands."""
    fields = fields_of(decision, datetime.now(timezone.utc))
    return tuple((TRAILER_PREFIX + name.lower(), value) for name, value in fields)


def _details(problem: Problem) -> list[Any]:
    reason = problem.type.rpartition(":")[2].replace("-", "_").upper()
    found: list[Any] = []
    if problem.decision is not None:
        reason = "QUOTA_EXCEEDED"
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=f"limit:{problem.decision.refused_by}", description=problem.detail
        )
        found.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if problem.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(problem.retry_after)
        found.append(retry)
    metadata = {"operation_id": problem.operation_id} if problem.operation_id else {}
    info = error_details_pb2.ErrorInfo(reason=reason, domain="tallygate", metadata=metadata)
    return [info, *found]
