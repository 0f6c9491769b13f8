"""What callers asked and were told, try by try, as the oracle reads it.

Owns the way from a reply, or an error, to a recorded try. Guarantees that an answer nobody expects
is counted as a surprise. Refuses to judge answers.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, assert_never

import grpc
from google.protobuf.message import Message

from tallygate.gen.v1 import event_pb2, quota_pb2, reason_pb2, usage_pb2
from tests.e2e.calls import LOST, reason
from tests.oracle.facts import Answer, Call, Held, Kind

Reply = (
    quota_pb2.CheckAndConsumeResponse
    | quota_pb2.ReserveResponse
    | quota_pb2.CommitResponse
    | quota_pb2.ReleaseResponse
    | quota_pb2.RefundResponse
    | usage_pb2.RecordUsageResponse
)

GONE: Final = frozenset({"RESERVATION_NOT_FOUND", "EVENT_NOT_FOUND"})
"""What a caller is told of what it had made before Redis lost it, or forgot it."""

OUTCOMES: Final = {
    quota_pb2.RESERVATION_OUTCOME_COMMITTED: Answer.GRANTED,
    quota_pb2.RESERVATION_OUTCOME_COMMITTED_PARTIALLY: Answer.GRANTED,
    quota_pb2.RESERVATION_OUTCOME_RELEASED: Answer.GRANTED,
    quota_pb2.RESERVATION_OUTCOME_ALREADY_COMMITTED: Answer.CLOSED,
    quota_pb2.RESERVATION_OUTCOME_ALREADY_RELEASED: Answer.CLOSED,
    quota_pb2.RESERVATION_OUTCOME_EXPIRED: Answer.CLOSED,
}


def now_us() -> int:
    """Return microseconds since the Unix epoch, of the clock that the servers share."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Book:
    """Every try, in the order of the answers; `open_calls` are those whose answer is awaited."""

    secrets: Sequence[str] = ()
    calls: list[Call] = field(default_factory=list)
    surprises: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def answered(self, asked: Call, reply: Reply) -> Call:
        """Take down a reply."""
        return self._kept(replace(_read(asked, reply), text=self._text(str(reply))))

    def failed(self, asked: Call, error: grpc.aio.AioRpcError) -> Call:
        """Take down an error: OPEN where the call is to be sent again, else FAILED."""
        code, text = error.code(), f"{error.code().name}: {error.details()}"
        if code in LOST:
            self.failures[code.name] += 1
            return self._kept(replace(asked, ended_us=now_us(), text=text))
        return self._refused(asked, reason(error), text)

    def item_failed(self, asked: Call, error: reason_pb2.ItemError) -> Call:
        """Take down the error of one item of a list."""
        name = reason_pb2.Reason.Name(error.reason).removeprefix("REASON_")
        text = f"{name}: {error.message}"
        if error.code in {code.value[0] for code in LOST}:
            self.failures[name] += 1
            return self._kept(replace(asked, ended_us=now_us(), text=text))
        return self._refused(asked, name, text)

    def _refused(self, asked: Call, name: str, text: str) -> Call:
        self.failures[name] += 1
        if name not in GONE:
            self.surprises[f"{asked.kind} {text}"] += 1
        return self._kept(replace(asked, ended_us=now_us(), answer=Answer.FAILED, text=text))

    def _kept(self, call: Call) -> Call:
        self.calls.append(call)
        return call

    def _text(self, text: str) -> str:
        # Of replies only what gives a secret away is kept: the rest would fill the memory.
        return text if any(secret in text for secret in self.secrets) else ""


def asked(
    kind: Kind, tenant: str, operation: str, sidecar: str, units: dict[str, int], *, gated: bool
) -> Call:
    """Return a try that is about to be sent, not answered yet."""
    at_us = now_us()
    return Call(
        kind,
        tenant,
        operation,
        sidecar,
        at_us,
        at_us,
        Answer.OPEN,
        tuple(units.items()),
        gated=gated,
    )


def _read(asked: Call, reply: Reply) -> Call:
    call = replace(asked, ended_us=now_us(), replayed=reply.replayed, decision=_decision(reply))
    if not isinstance(reply, quota_pb2.ReserveResponse | quota_pb2.ReleaseResponse):
        call = replace(call, held=_held(reply.durability))
    if not isinstance(reply, quota_pb2.ReleaseResponse | usage_pb2.RecordUsageResponse):
        call = replace(call, accounts=tuple({each.tenant_id for each in reply.limits}))
    match reply:
        case quota_pb2.CheckAndConsumeResponse():
            answer = Answer.GRANTED if reply.allowed else Answer.REFUSED
            events = tuple(reply.event_ids)
            return replace(call, answer=answer, events=events, degraded=reply.degraded)
        case usage_pb2.RecordUsageResponse():
            events = (reply.event_id,)
            return replace(call, answer=Answer.GRANTED, events=events, degraded=reply.degraded)
        case quota_pb2.RefundResponse():
            return replace(call, answer=Answer.GRANTED, events=(reply.event_id,))
        case quota_pb2.ReserveResponse():
            return replace(call, answer=Answer.GRANTED if reply.allowed else Answer.REFUSED)
        case quota_pb2.CommitResponse():
            return replace(call, answer=OUTCOMES[reply.outcome], events=tuple(reply.event_ids))
        case quota_pb2.ReleaseResponse():
            return replace(call, answer=OUTCOMES[reply.outcome])
        case _:
            assert_never(reply)


def _held(durability: event_pb2.Durability.ValueType) -> Held:
    name = event_pb2.Durability.Name(durability).removeprefix("DURABILITY_")
    return Held("" if name == "UNSPECIFIED" else name)


def _decision(reply: Reply) -> str:
    plain: Message = type(reply)()
    plain.MergeFromString(reply.SerializeToString())
    # How often it was told, and how safely it is held by now, is not what was decided.
    for name in ("replayed", "durability", "degraded"):
        if name in plain.DESCRIPTOR.fields_by_name:
            plain.ClearField(name)
    return blake2b(plain.SerializeToString(deterministic=True), digest_size=8).hexdigest()
