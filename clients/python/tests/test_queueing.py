"""The buffer's state machine: whatever comes of requests, nothing is lost, doubled or reordered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tallygate_client import (
    BufferFull,
    BufferOptions,
    Durability,
    InvalidRequest,
    NotFound,
    Outcome,
    Recorded,
    Settlement,
    TallygateError,
    Unavailable,
)
from tallygate_client.backoff import Backoff
from tallygate_client.gen.v1 import quota_pb2, usage_pb2
from tallygate_client.queueing import REQUEST_BYTES_MAX, Queue, Sending, Told
from tallygate_client.spool import Segment
from tallygate_client.spool_format import Entry

OPTIONS = BufferOptions(max_events=20, batch=4, flush_ms=100)
ACCEPTED = Recorded("", replayed=False, durability=Durability.JOURNAL, degraded=False)


def event(name: str, text: str = "") -> Entry:
    """Return an event."""
    return Entry(usage_pb2.RecordUsageRequest(event_id=name, tenant_id=text))


def commit(name: str, instead: int = 2) -> Entry:
    """Return a commit, and what to record in its stead."""
    events = tuple(
        usage_pb2.RecordUsageRequest(event_id=f"{name}:{each}") for each in range(instead)
    )
    return Entry(quota_pb2.CommitRequest(operation_id=name), events)


def name_of(entry: Entry) -> str:
    """Return an entry's id."""
    message = entry.message
    if isinstance(message, quota_pb2.CommitRequest):
        return message.operation_id
    return message.event_id


def names(sending: Sending | None) -> list[str]:
    """Return the ids of a request."""
    return [name_of(each.entry) for each in sending.entries] if sending else []


def queue() -> Queue:
    """Return an empty queue whose waits are as long as they may be."""
    return Queue(OPTIONS, Backoff(draw=lambda _, most: most))


def test_waits_for_company_until_it_is_time() -> None:
    """An entry waits for others until its time is up, or a request is full, or it is flushed."""
    waiting = queue()
    assert waiting.wait_s(0.0) is None
    assert waiting.accept([event("a")], None, 0.0)
    assert not waiting.accept([event("b")], None, 0.0)
    assert waiting.take(0.05) is None
    assert waiting.wait_s(0.05) == pytest.approx(0.05)
    assert names(waiting.take(0.1)) == ["a", "b"]
    waiting.finished([ACCEPTED, ACCEPTED], 0.1)
    assert waiting.accept([event(each) for each in "cdef"], None, 0.1)
    assert names(waiting.take(0.1)) == ["c", "d", "e", "f"]
    waiting.finished([ACCEPTED] * 4, 0.1)
    waiting.accept([event("g")], None, 0.2)
    through = waiting.flush()
    waiting.accept([event("h")], None, 0.2)
    assert names(waiting.take(0.2)) == ["g", "h"]
    assert not waiting.gone(through)
    waiting.finished([ACCEPTED, ACCEPTED], 0.2)
    assert waiting.gone(through)


def test_one_request_at_a_time_in_order() -> None:
    """Nothing else is sent while a request is on its way, and commits go alone, in their place."""
    waiting = queue()
    waiting.accept([event("a"), commit("b"), event("c")], None, 0.0)
    waiting.flush()
    assert names(waiting.take(0.0)) == ["a"]
    assert waiting.take(9.0) is None
    waiting.finished([ACCEPTED], 0.0)
    assert names(waiting.take(0.0)) == ["b"]


def test_failures_wait_longer_each_time_and_keep_to_pushback() -> None:
    """Waits double up to 5 s; a pushback that is longer counts; an answer begins anew."""
    waiting = queue()
    waiting.accept([event("a")], None, 0.0)
    waiting.flush()
    now, waits = 0.0, []
    for _ in range(8):
        assert waiting.take(now)
        assert waiting.finished(Unavailable("away"), now).retries == 1
        waits.append(waiting.wait_s(now))
        now += waits[-1] or 0.0
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    waiting.take(now)
    waiting.finished(Unavailable("away", retry_after=7.0), now)
    assert waiting.wait_s(now) == pytest.approx(7.0)
    waiting.take(now + 7.0)
    waiting.finished([ACCEPTED], now)
    waiting.accept([event("b")], None, now)
    waiting.flush()
    waiting.take(now + 7.0)
    waiting.finished(Unavailable("away"), now)
    assert waiting.wait_s(now) == pytest.approx(0.1)


def test_items_of_a_list_part_ways() -> None:
    """What may come again goes back to its place, what may not is refused, the rest is sent."""
    waiting = queue()
    waiting.accept([event("a"), event("b"), event("c")], None, 0.0)
    waiting.flush()
    waiting.take(0.0)
    bad = InvalidRequest("no")
    told = waiting.finished([Unavailable("later", retry_after=3.0), bad, ACCEPTED], 0.0)
    assert (told.sent, told.retries) == (1, 1)
    assert told.rejected == [(event("b"), bad)]
    assert waiting.wait_s(0.0) == pytest.approx(3.0)
    assert names(waiting.take(3.0)) == ["a"]


def test_one_fault_does_not_refuse_its_neighbours() -> None:
    """A request that is refused as a whole is halved until the one at fault stands alone."""
    waiting = queue()
    waiting.accept([event(each) for each in "abcd"], None, 0.0)
    waiting.flush()
    sent: list[str] = []
    refused: list[str] = []
    while (sending := waiting.take(0.0)) is not None:
        if "c" in names(sending):
            told = waiting.finished(TallygateError("no"), 0.0)
        else:
            sent += names(sending)
            told = waiting.finished([ACCEPTED] * len(sending.entries), 0.0)
        refused += [name_of(entry) for entry, _ in told.rejected]
    assert (sent, refused) == (["a", "b", "d"], ["c"])


def test_requests_are_bounded_in_bytes() -> None:
    """Large events share a request only as far as a service takes it."""
    waiting = queue()
    text = "x" * (REQUEST_BYTES_MAX // 2)
    waiting.accept([event(each, text) for each in "abc"], None, 0.0)
    waiting.flush()
    assert names(waiting.take(0.0)) == ["a"]
    waiting.finished([ACCEPTED], 0.0)
    assert names(waiting.take(0.0)) == ["b"]


@pytest.mark.parametrize(
    "outcome",
    [
        Settlement(Outcome.EXPIRED),
        Settlement(Outcome.ALREADY_RELEASED),
        NotFound("gone", reason="RESERVATION_NOT_FOUND"),
    ],
)
def test_commit_of_what_is_gone_is_recorded(outcome: Any, tmp_path: Path) -> None:
    """Where the reservation is gone its usage is recorded, and its record stays until then."""
    segment = Segment(tmp_path, 0, 1)
    waiting = queue()
    waiting.accept([commit("a"), event("b")], segment, 0.0)
    waiting.flush()
    waiting.take(0.0)
    assert waiting.finished(outcome, 0.0) == Told()
    assert names(waiting.take(0.0)) == ["a:0", "a:1", "b"]
    told = waiting.finished([ACCEPTED, Unavailable("later"), ACCEPTED], 0.0)
    assert told.done == [segment]
    waiting.take(9.0)
    assert waiting.finished([ACCEPTED], 9.0).done == [segment]
    assert waiting.pending == 0


def test_commit_that_names_nothing_is_refused() -> None:
    """A commit that holds no events for the case that its reservation is gone is told of."""
    waiting = queue()
    waiting.accept([commit("a", instead=0)], None, 0.0)
    waiting.flush()
    waiting.take(0.0)
    ((_, error),) = waiting.finished(Settlement(Outcome.EXPIRED), 0.0).rejected
    assert error.reason == "EXPIRED"


def test_what_is_left_is_told_unless_it_is_spooled(tmp_path: Path) -> None:
    """In the end, entries on the disk are the next process's; the others are given back."""
    waiting = queue()
    waiting.accept([event("a")], Segment(tmp_path, 0, 1), 0.0)
    waiting.accept([event("b")], None, 0.0)
    waiting.flush()
    waiting.take(0.0)
    assert waiting.left() == [event("b")]
    assert waiting.pending == 0


class Machine(RuleBasedStateMachine):
    """Accepts, takes and finishes in any order, and counts what became of every entry."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.now = 0.0
        self.number = 0
        self.taken: list[str] = []
        self.open: list[str] = []
        self.sending: Sending | None = None

    @rule(count=st.integers(1, 6))
    def accept(self, count: int) -> None:
        """Take entries, or none of them where they are too many."""
        entries = [event(f"{self.number + each}") for each in range(count)]
        try:
            self.queue.check_room(count)
        except BufferFull:
            assert len(self.open) + count > OPTIONS.max_events
            return
        self.queue.accept(entries, None, self.now)
        self.open += [name_of(each) for each in entries]
        self.number += count

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def flush(self) -> None:
        """Send without waiting for company."""
        self.queue.flush()

    @rule()
    def take(self) -> None:
        """Take the next request; it is the oldest of what is open."""
        sending = self.queue.take(self.now)
        if sending is None:
            return
        assert self.sending is None
        assert names(sending) == self.open[: len(sending.entries)]
        assert len(sending.entries) <= OPTIONS.batch
        self.sending = sending

    @precondition(lambda self: self.sending is not None)
    @rule(pick=st.data(), whole=st.sampled_from([None, Unavailable("x"), TallygateError("x")]))
    def finish(self, pick: st.DataObject, whole: TallygateError | None) -> None:
        """Answer the request."""
        assert self.sending is not None
        sent = names(self.sending)
        kinds = st.sampled_from([ACCEPTED, Unavailable("x"), InvalidRequest("x")])
        results = [pick.draw(kinds) for _ in sent]
        told = self.queue.finished(whole or results, self.now)
        self.sending = None
        if isinstance(whole, Unavailable):
            gone: list[str] = []
        elif whole is not None:
            gone = sent if len(sent) == 1 else []
        else:
            gone = [
                name
                for name, result in zip(sent, results, strict=True)
                if not isinstance(result, Unavailable)
            ]
        assert told.sent + len(told.rejected) == len(gone)
        self.open = [each for each in self.open if each not in gone]

    @invariant()
    def nothing_is_lost(self) -> None:
        """What is open is what the queue holds."""
        assert self.queue.pending == len(self.open) <= OPTIONS.max_events


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
