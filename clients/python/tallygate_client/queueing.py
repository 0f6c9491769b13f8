"""The buffer as a state machine, without I/O, threads or a clock: told the time, it says what next.

An entry waits, is on its way, and is done with: accepted, or refused for good. What may still be
accepted goes back to where it was, so that entries leave in the order in which they came.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .backoff import Backoff
from .errors import (
    BufferFull,
    Closed,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
    TallygateError,
    Unauthenticated,
    Unavailable,
)
from .gen.v1 import quota_pb2, usage_pb2
from .options import BufferOptions
from .results import Outcome, Recorded, Settlement
from .spool import Segment
from .spool_format import Entry

# Half of what a service takes in one message, unless it is set up otherwise.
REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
GONE: Final = frozenset({Outcome.EXPIRED, Outcome.ALREADY_RELEASED})
TRANSIENT: Final = (Unavailable, DeadlineExceeded, Closed)


@dataclass(slots=True, eq=False)
class Stored:
    """A record in the spool, and how many of the entries that stand for it are not yet done."""

    segment: Segment
    left: int = 1


@dataclass(slots=True, eq=False)
class Waiting:
    """An entry with its number in the order of arrival."""

    number: int
    entry: Entry
    stored: Stored | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """One request on its way: events, or one commit."""

    entries: tuple[Waiting, ...]

    @property
    def commit(self) -> quota_pb2.CommitRequest | None:
        """The commit, if it is one."""
        message = self.entries[0].entry.message
        return message if isinstance(message, quota_pb2.CommitRequest) else None

    @property
    def events(self) -> list[usage_pb2.RecordUsageRequest]:
        """The events, if it is no commit."""
        return [
            each.entry.message
            for each in self.entries
            if isinstance(each.entry.message, usage_pb2.RecordUsageRequest)
        ]


@dataclass(slots=True)
class Told:
    """What became of a request's entries."""

    sent: int = 0
    replayed: int = 0
    retries: int = 0
    rejected: list[tuple[Entry, TallygateError]] = field(default_factory=list)
    # Records of the spool that nothing stands for any more.
    done: list[Segment] = field(default_factory=list)


class Queue:
    """Entries that wait or are on their way; bounded."""

    def __init__(self, options: BufferOptions, backoff: Backoff | None = None) -> None:
        self._options = options
        self._backoff = backoff or Backoff()
        self._waiting: deque[Waiting] = deque()
        self._sending: Sending | None = None
        self._numbers = itertools.count(1)
        self._last = 0
        self._batch = options.batch
        self._due = 0.0
        self._retry_at = 0.0
        self._flush_through = 0

    @property
    def pending(self) -> int:
        """How many entries wait or are on their way."""
        return len(self._waiting) + (len(self._sending.entries) if self._sending else 0)

    def check_room(self, entries: int) -> None:
        """Raise `BufferFull` unless so many more may be taken."""
        if self.pending + entries > self._options.max_events:
            raise BufferFull(
                f"the buffer holds {self.pending} of {self._options.max_events} events",
                field="max_events",
            )

    def accept(self, entries: Sequence[Entry], segment: Segment | None, now: float) -> bool:
        """Take entries; tell whether that changes when there is something to do."""
        before = len(self._waiting)
        if not before:
            self._due = now + self._options.flush_ms / 1e3
        for each in entries:
            self._last = next(self._numbers)
            stored = Stored(segment) if segment is not None else None
            self._waiting.append(Waiting(self._last, each, stored))
        return not before or before < self._batch <= len(self._waiting)

    def flush(self) -> int:
        """Wait for no company until all that is here is gone; return what `gone` is asked with."""
        self._flush_through = self._last
        return self._last

    def gone(self, through: int) -> bool:
        """Tell whether everything up to a number is done with."""
        first = self._sending.entries[0] if self._sending else None
        first = first or (self._waiting[0] if self._waiting else None)
        return first is None or first.number > through

    def wait_s(self, now: float) -> float | None:
        """Return how many seconds there is nothing to send; None until something comes."""
        if self._sending is not None or not self._waiting:
            return None
        full = len(self._waiting) >= self._batch
        flushed = self._waiting[0].number <= self._flush_through
        due = self._retry_at if full or flushed else max(self._due, self._retry_at)
        return max(0.0, due - now)

    def take(self, now: float) -> Sending | None:
        """Return the next request if it is time; nothing else is sent until it is `finished`."""
        if self.wait_s(now) != 0.0:
            return None
        taken = [self._waiting.popleft()]
        size = taken[0].entry.message.ByteSize()
        if isinstance(taken[0].entry.message, usage_pb2.RecordUsageRequest):
            while self._waiting and len(taken) < self._batch:
                message = self._waiting[0].entry.message
                size += message.ByteSize()
                if not isinstance(message, usage_pb2.RecordUsageRequest):
                    break
                if size > REQUEST_BYTES_MAX:
                    break
                taken.append(self._waiting.popleft())
        self._sending = Sending(tuple(taken))
        self._due = now + self._options.flush_ms / 1e3
        return self._sending

    def finished(self, outcome: Any, now: float) -> Told:
        """Hear what the request on its way came to: its answer or its error."""
        sending, self._sending = self._sending, None
        assert sending is not None
        told = Told()
        if isinstance(outcome, TallygateError):
            self._failed(sending, outcome, now, told)
        elif isinstance(outcome, Settlement):
            self._settled(sending.entries[0], outcome, told)
        else:
            self._answered(sending, outcome, now, told)
        return told

    def interrupted(self) -> None:
        """Put back what was on its way: who sent it has ended before the answer."""
        sending, self._sending = self._sending, None
        if sending is not None:
            self._waiting.extendleft(reversed(sending.entries))

    def left(self) -> list[Entry]:
        """Return what is not in the spool and so ends with the process, and forget everything."""
        entries = [*(self._sending.entries if self._sending else ()), *self._waiting]
        self._waiting.clear()
        self._sending = None
        return [each.entry for each in entries if each.stored is None]

    def _failed(self, sending: Sending, error: TallygateError, now: float, told: Told) -> None:
        if _is_of_the_call(error, of_many=sending.commit is None):
            self._put_back(sending.entries, error.retry_after, now, told)
        elif len(sending.entries) > 1:
            # One of them is at fault for all: halves find it, and its neighbours go on.
            self._batch = len(sending.entries) // 2
            self._waiting.extendleft(reversed(sending.entries))
            told.retries += 1
        elif isinstance(error, NotFound) and sending.commit is not None:
            self._settled(sending.entries[0], Settlement(Outcome.EXPIRED), told, error)
        else:
            self._reject(sending.entries[0], error, told)

    def _answered(
        self,
        sending: Sending,
        results: Sequence[Recorded | TallygateError],
        now: float,
        told: Told,
    ) -> None:
        again: list[Waiting] = []
        pushback_s = 0.0
        for each, result in zip(sending.entries, results, strict=True):
            if isinstance(result, Recorded):
                told.sent += 1
                told.replayed += result.replayed
                self._release(each, told)
            elif isinstance(result, TRANSIENT) or result.retry_after is not None:
                again.append(each)
                pushback_s = max(pushback_s, result.retry_after or 0.0)
            else:
                self._reject(each, result, told)
        self._batch = min(self._options.batch, self._batch * 2)
        if again:
            self._put_back(again, pushback_s, now, told)
        else:
            self._backoff.succeeded()

    def _settled(
        self,
        waiting: Waiting,
        settlement: Settlement,
        told: Told,
        error: TallygateError | None = None,
    ) -> None:
        self._backoff.succeeded()
        instead = waiting.entry.instead
        if settlement.outcome not in GONE:
            told.sent += 1
            told.replayed += settlement.replayed
            self._release(waiting, told)
        elif instead:
            if waiting.stored is not None:
                waiting.stored.left = len(instead)
            self._waiting.extendleft(
                Waiting(waiting.number, Entry(each), waiting.stored) for each in reversed(instead)
            )
        else:
            self._reject(waiting, error or _gone(settlement.outcome), told)

    def _put_back(
        self, entries: Sequence[Waiting], pushback_s: float | None, now: float, told: Told
    ) -> None:
        self._waiting.extendleft(reversed(entries))
        self._retry_at = now + self._backoff.failed(pushback_s)
        told.retries += 1

    def _reject(self, waiting: Waiting, error: TallygateError, told: Told) -> None:
        told.rejected.append((waiting.entry, error))
        self._release(waiting, told)

    def _release(self, waiting: Waiting, told: Told) -> None:
        stored = waiting.stored
        if stored is None:
            return
        stored.left -= 1
        if not stored.left:
            told.done.append(stored.segment)


def _gone(outcome: Outcome) -> FailedPrecondition:
    return FailedPrecondition(f"the reservation is gone: {outcome.value}", reason=outcome.value)


def _is_of_the_call(error: TallygateError, *, of_many: bool) -> bool:
    """Whether an error says nothing of what is in the call, but of who calls or what is between.

    A certificate that is not accepted must not empty a buffer. What a caller may not do for a
    tenant is told item by item, so that a list that is refused whole is refused for its caller.
    """
    if isinstance(error, Internal):
        return not error.reason
    if isinstance(error, PermissionDenied):
        return of_many
    return isinstance(error, (*TRANSIENT, Unauthenticated))
