"""Each call as a value: what to send, how to read the answer, what to say when none comes.

Nothing here does I/O, so that both kinds of client share it: they send a `Call`'s request by its
method and give what came to the `Core`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from . import requests, results
from .cancellation import Cancellation
from .errors import (
    BufferFull,
    Cancelled,
    Closed,
    DeadlineExceeded,
    Internal,
    SpoolFailed,
    SpoolInUse,
    TallygateError,
    Unavailable,
    error_of_call,
)
from .gen.v1 import quota_pb2, usage_pb2
from .options import ClientOptions
from .results import Decision, Granted, Recorded, Refunded
from .stats import Counts
from .values import Charge, Usage

T = TypeVar("T")

# Why a buffer takes nothing.
UNTAKEN: Final = (BufferFull, SpoolFailed, SpoolInUse, Closed)

_QUOTA: Final = "tallygate.v1.QuotaService"
_USAGE: Final = "tallygate.v1.UsageService"


@dataclass(frozen=True, slots=True)
class Method:
    """A method on the wire."""

    path: str
    request: type[Message]
    response: type[Message]


METHODS: Final[Mapping[str, Method]] = {
    name: Method(
        f"/{service}/{name}",
        getattr(module, f"{name}Request"),
        getattr(module, f"{name}Response"),
    )
    for service, module, names in (
        (
            _QUOTA,
            quota_pb2,
            (
                *("CheckAndConsume", "BatchCheckAndConsume", "Check", "GetQuota", "WatchQuota"),
                *("Reserve", "Commit", "Release", "ExtendReservation", "Refund"),
            ),
        ),
        (_USAGE, usage_pb2, ("RecordUsage", "BatchRecordUsage")),
    )
    for name in names
}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One logical call.

    `local` is what to answer when nobody does and the policy is `open`; None where no policy holds.
    """

    method: str
    request: Message
    read: Callable[[Any], T]
    operation_id: str = ""
    timeout: float | None = None
    cancel: Cancellation | None = None
    local: Callable[[], T] | None = None


# Several calls of which one follows from another: yields each call, is sent its answer or error.
Flow = Generator[Call[Any], Any, T]


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """What a flow came to."""

    value: T


def proceed(flow: Flow[T], answer: Any) -> Call[Any] | Finished[T]:
    """Give a flow what its last call came to, None at first; return its next call or its end."""
    try:
        return flow.throw(answer) if isinstance(answer, TallygateError) else flow.send(answer)
    except StopIteration as done:
        return Finished(done.value)


class BufferIntake(Protocol):
    """What takes that which cannot be sent now."""

    @property
    def pending(self) -> int:
        """How many entries it holds."""

    @property
    def spool_bytes(self) -> int:
        """How many bytes of the disk."""

    def put_events(self, events: Sequence[usage_pb2.RecordUsageRequest]) -> None:
        """Take events, all of them or none."""

    def put_commit(
        self,
        request: quota_pb2.CommitRequest,
        instead: Sequence[usage_pb2.RecordUsageRequest],
    ) -> None:
        """Take a commit, and what to record should its reservation be gone by then."""


class Core:
    """What a client decides without I/O: calls, their answers, the local policy, its counts."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.counts = Counts()
        self.intake: BufferIntake | None = None
        self.closed = False

    def check_and_consume(self, charge: Charge, **options: Any) -> Call[Decision]:
        """Charge."""
        name = charge.operation_id or requests.new_id()
        request = requests.check_and_consume(charge, name)

        def local() -> Decision:
            events = requests.events_of_charge(request)
            if self.intake is not None:
                self.intake.put_events(events)
            ids = tuple(each.event_id for each in events) if self.intake is not None else ()
            return Decision(allowed=True, event_ids=ids, local=True, operation_id=name)

        return Call(
            "CheckAndConsume",
            request,
            lambda reply: results.decision_of(reply, name),
            operation_id=name,
            local=local,
            **options,
        )

    def batch_check_and_consume(
        self, charges: Sequence[Charge], **options: Any
    ) -> Call[list[Decision | TallygateError]]:
        """Charge a list."""
        names = [each.operation_id or requests.new_id() for each in charges]
        request = quota_pb2.BatchCheckAndConsumeRequest(
            requests=[
                requests.check_and_consume(charge, name)
                for charge, name in zip(charges, names, strict=True)
            ]
        )

        def read(reply: quota_pb2.BatchCheckAndConsumeResponse) -> list[Decision | TallygateError]:
            _check_count(reply.results, names)
            return [
                results.decision_of(each.response, name)
                if each.HasField("response")
                else results.item_error_of(each.error, name)
                for each, name in zip(reply.results, names, strict=True)
            ]

        return Call("BatchCheckAndConsume", request, read, **options)

    def check(self, request: quota_pb2.CheckRequest, **options: Any) -> Call[Decision]:
        """Ask without charging."""
        return Call(
            "Check",
            request,
            lambda reply: results.decision_of(reply, ""),
            local=lambda: Decision(allowed=True, local=True),
            **options,
        )

    def reserve(self, request: quota_pb2.ReserveRequest, **options: Any) -> Call[Granted]:
        """Hold units."""
        name = request.operation_id
        decision = Decision(allowed=True, local=True, operation_id=name)
        return Call(
            "Reserve",
            request,
            lambda reply: results.granted_of(reply, name),
            operation_id=name,
            local=lambda: Granted(decision, "", None),
            **options,
        )

    def refund(self, request: quota_pb2.RefundRequest, **options: Any) -> Call[Refunded]:
        """Take back."""
        name = request.operation_id
        return Call(
            "Refund",
            request,
            lambda reply: results.refunded_of(reply, name),
            operation_id=name,
            **options,
        )

    def record(self, usage: Usage, **options: Any) -> Call[Recorded]:
        """Record an event."""
        request = requests.record_usage(usage)
        return Call(
            "RecordUsage",
            request,
            results.recorded_of,
            operation_id=request.operation_id or request.event_id,
            **options,
        )

    def batch_record(
        self, events: Sequence[usage_pb2.RecordUsageRequest], **options: Any
    ) -> Call[list[Recorded | TallygateError]]:
        """Record a list."""
        names = [each.operation_id or each.event_id for each in events]

        def read(reply: usage_pb2.BatchRecordUsageResponse) -> list[Recorded | TallygateError]:
            _check_count(reply.results, names)
            return [
                results.recorded_of(each.response)
                if each.HasField("response")
                else results.item_error_of(each.error, name)
                for each, name in zip(reply.results, names, strict=True)
            ]

        request = usage_pb2.BatchRecordUsageRequest(requests=events)
        return Call("BatchRecordUsage", request, read, **options)

    def check_open(self, call: Call[Any]) -> None:
        """Raise `Closed` unless the client is open."""
        if self.closed:
            raise self.closed_error(call)

    def timeout_of(self, call: Call[Any]) -> float:
        """Return how many seconds the call has, retries included."""
        return self.options.timeout_s if call.timeout is None else call.timeout

    def answered(self, call: Call[T], reply: Any, began: float) -> T:
        """Read an answer."""
        self._ended(call.method, "OK", began)
        return call.read(reply)

    def failed(self, call: Call[T], told: grpc.RpcError, began: float) -> T:
        """Answer for a call that ended with a status, as the policy says, or raise its error."""
        error = error_of_call(told, call.operation_id)
        self._ended(call.method, error.code, began)
        if error.code == "CANCELLED" and self.closed:
            raise self.closed_error(call) from None
        if call.local is None or not isinstance(error, Unavailable | DeadlineExceeded):
            raise error from None
        return self._decide_locally(call.local, call.method, error)

    def cancelled(self, call: Call[Any], began: float) -> Cancelled:
        """Count a call that its caller ended, and return its error."""
        self._ended(call.method, "CANCELLED", began)
        return Cancelled("cancelled by the caller", operation_id=call.operation_id)

    def closed_error(self, call: Call[Any]) -> Closed:
        """Say that the client was closed."""
        return Closed("the client is closed", operation_id=call.operation_id)

    def buffered(self, put: Callable[[BufferIntake], None]) -> bool:
        """Hand to the buffer what nobody answered; tell whether there is one, and it has room."""
        if self.intake is None:
            return False
        try:
            put(self.intake)
        except UNTAKEN:
            return False
        return True

    def _decide_locally(self, local: Callable[[], T], method: str, error: TallygateError) -> T:
        if self.options.on_absent == "open":
            try:
                answer = local()
            except UNTAKEN:
                # What cannot be recorded is not given away.
                answer = None
            if answer is not None:
                self._told_locally("open", method)
                return answer
        self._told_locally("closed", method)
        raise error from None

    def _told_locally(self, policy: str, method: str) -> None:
        self.counts.add_local(policy, method)
        if self.options.hooks.on_local is not None:
            quietly(self.options.hooks.on_local, method, policy)

    def _ended(self, method: str, code: str, began: float) -> None:
        self.counts.add("calls")
        if code != "OK":
            self.counts.add("errors")
        if self.options.hooks.on_call is not None:
            quietly(self.options.hooks.on_call, method, code, time.monotonic() - began)


def _check_count(results: Sequence[Any], asked: Sequence[Any]) -> None:
    if len(results) != len(asked):
        raise Internal(f"answered with {len(results)} results for {len(asked)}")


def quietly(hook: Callable[..., None], *arguments: Any) -> None:
    """Call a hook; what it raises is no business of the call that it hears of."""
    try:
        hook(*arguments)
    except Exception:  # noqa: BLE001  # somebody else's code, which must not break ours
        return
