"""CheckAndConsume and RecordUsage, alone and in lists, as methods that take calls in batches.

Guarantees: each call is answered once, by itself: what is wrong with one is no other's matter; a
list has one result per request, in order, whatever its neighbours are.
Refuses to know: transports, how decisions are made, and how errors are told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from google.protobuf.message import DecodeError

from tallygate.api import convert
from tallygate.api.batched import Answering, BatchMethod, BatchMethods, Call
from tallygate.api.contents import Contents
from tallygate.api.leased import LeasedCalls
from tallygate.api.lists import visible
from tallygate.api.replies import Replies
from tallygate.api.status import MalformedMessage, item_error
from tallygate.domain.errors import TallygateError
from tallygate.domain.request import ConsumeRequest, ConsumeResult, RecordResult, UsageRequest
from tallygate.domain.varint import sized
from tallygate.flow.admit import Admit
from tallygate.flow.rounds import Result, Told
from tallygate.gen.v1 import quota_pb2, usage_pb2

QUOTA: Final = "tallygate.v1.QuotaService"
USAGE: Final = "tallygate.v1.UsageService"


class Asked(Protocol):
    """What `Admit` has one of for charges and one for records."""

    def __call__(
        self, requests: Sequence[Any], expires_at: float, ticket: int, told: Told, /
    ) -> None:
        """Have the requests decided, and tell of them once."""
        ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of request is read, of bytes or of a message, asked, and answered."""

    read: Callable[[bytes], Any]
    request_of: Callable[[Any], Any]
    ask: Asked
    reply: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class _Singles:
    """Answers calls of one request each."""

    answering: Answering
    reply: Callable[[Any], bytes]

    def waits(self, ticket: int) -> bool:
        """Say whether the call's caller waits."""
        return self.answering.waits(ticket)

    def answered(self, ticket: int, results: Sequence[Result]) -> None:
        """Answer a call with its one result."""
        result = results[0]
        if isinstance(result, TallygateError):
            self.answering.fail(ticket, result)
        else:
            self.answering.respond(ticket, self.reply(result))

    def failed(self, ticket: int, error: Exception) -> None:
        """Answer a call with why there is none."""
        self.answering.fail(ticket, error)


@dataclass(frozen=True, slots=True)
class _List:
    """Answers one call of many requests; those that did not convert are errors already."""

    answering: Answering
    converted: Sequence[object]
    reply: Callable[[Sequence[object]], bytes]

    def waits(self, ticket: int) -> bool:
        """Say whether the call's caller waits."""
        return self.answering.waits(ticket)

    def answered(self, ticket: int, results: Sequence[Result]) -> None:
        """Put the results between the requests that did not convert, and answer."""
        found = iter(results)
        every = [
            visible(each if isinstance(each, TallygateError) else next(found))
            for each in self.converted
        ]
        self.answering.respond(ticket, self.reply(every))

    def failed(self, ticket: int, error: Exception) -> None:
        """Answer the call with why there are no results."""
        self.answering.fail(ticket, error)


def methods_of(admit: Admit, leased: LeasedCalls | None = None) -> BatchMethods:
    """Return the methods over one way to decide, behind what is granted from leases."""
    replies = Replies()
    charge = _Kind(Contents().request, convert.consume_request, admit.charge, replies.consumed)
    record = _Kind(_usage_of, convert.usage_request, admit.keep, _recorded)
    return {
        f"{QUOTA}/CheckAndConsume": _singly(charge, leased),
        f"{USAGE}/RecordUsage": _singly(record),
        f"{QUOTA}/BatchCheckAndConsume": _listed(
            charge, quota_pb2.BatchCheckAndConsumeRequest.FromString, _all_consumed(replies)
        ),
        f"{USAGE}/BatchRecordUsage": _listed(
            record, usage_pb2.BatchRecordUsageRequest.FromString, _all_recorded
        ),
    }


def _singly(kind: _Kind, leased: LeasedCalls | None = None) -> BatchMethod:
    """Return the method of calls that are one request each."""
    read, ask, reply = kind.read, kind.ask, kind.reply

    def answer(calls: Sequence[Call], answering: Answering) -> None:
        told = _Singles(answering, reply)
        if leased is not None:
            calls = leased.take(calls, answering)
        for number, data, expires_at in calls:
            try:
                request = read(data)
            except DecodeError:
                # Without its cause, which would quote bytes that a caller chose into the log.
                answering.fail(number, MalformedMessage())
            except Exception as error:  # noqa: BLE001  it is this call's answer, whatever it is
                answering.fail(number, error)
            else:
                ask((request,), expires_at, number, told)

    return answer


def _listed(
    kind: _Kind, read: Callable[[bytes], Any], reply: Callable[[Sequence[object]], bytes]
) -> BatchMethod:
    """Return the method of calls that are lists of such requests."""

    def answer(calls: Sequence[Call], answering: Answering) -> None:
        for number, data, expires_at in calls:
            try:
                messages = read(data).requests
                convert.counted(messages)
                converted = [_converted(kind, each) for each in messages]
            except DecodeError:
                answering.fail(number, MalformedMessage())
                continue
            except Exception as error:  # noqa: BLE001  it is this call's answer, whatever it is
                answering.fail(number, error)
                continue
            told = _List(answering, converted, reply)
            good = [each for each in converted if not isinstance(each, TallygateError)]
            if good:
                kind.ask(good, expires_at, number, told)
            else:
                told.answered(number, ())

    return answer


def _usage_of(data: bytes) -> UsageRequest:
    return convert.usage_request(usage_pb2.RecordUsageRequest.FromString(data))


def _converted(kind: _Kind, message: object) -> ConsumeRequest | UsageRequest | TallygateError:
    try:
        return cast(ConsumeRequest | UsageRequest, kind.request_of(message))
    except TallygateError as error:
        return error


def _recorded(result: RecordResult) -> bytes:
    return convert.record_response(result).SerializeToString()


def _all_consumed(replies: Replies) -> Callable[[Sequence[object]], bytes]:
    def encoded(results: Sequence[object]) -> bytes:
        """Return the response: a field of results, each a response or an error."""
        parts = [
            sized(b"\x12", item_error(result).SerializeToString())
            if isinstance(result, TallygateError)
            else sized(b"\x0a", replies.consumed(cast(ConsumeResult, result)))
            for result in results
        ]
        return b"".join([sized(b"\x0a", part) for part in parts])

    return encoded


def _all_recorded(results: Sequence[object]) -> bytes:
    outcomes = [recorded_item(cast(RecordResult | TallygateError, each)) for each in results]
    return usage_pb2.BatchRecordUsageResponse(results=outcomes).SerializeToString()


def recorded_item(result: RecordResult | TallygateError) -> usage_pb2.BatchRecordUsageResult:
    """Return what came of one event of a list."""
    outcome = usage_pb2.BatchRecordUsageResult()
    if isinstance(result, TallygateError):
        outcome.error.CopyFrom(item_error(result))
    else:
        outcome.response.CopyFrom(convert.record_response(result))
    return outcome
