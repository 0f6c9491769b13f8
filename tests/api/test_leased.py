"""Leased calls as they come: answered together, as each would have been by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from tallygate.api.calls import QUOTA, methods_of
from tallygate.api.leased import MET_MIN, LeasedCalls
from tallygate.domain.catalog import Limit
from tallygate.domain.errors import NotDurable, OperationIdReused
from tallygate.domain.request import Durability
from tallygate.gen.v1 import limit_pb2, quota_pb2
from tallygate.ports.journal import Journal
from tallygate.testing.journal import FakeDisk, FakeJournal
from tests.builders import catalog, window
from tests.flow.lease_parts import CatalogHeld, Leasing, recorded_events

PLENTY = 1_000_000
FOREVER = float("inf")
Reply = quota_pb2.CheckAndConsumeResponse
T = TypeVar("T")


@dataclass
class Answers:
    """Keeps what each call was answered; a second answer to one fails."""

    replies: dict[int, Reply] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)

    def waits(self, call: int) -> bool:
        """Somebody waits until there is an answer."""
        return call not in self.replies and call not in self.errors

    def respond(self, call: int, reply: bytes) -> None:
        """Keep a reply."""
        assert self.waits(call)
        self.replies[call] = Reply.FromString(reply)

    def fail(self, call: int, error: Exception) -> None:
        """Keep an error."""
        assert self.waits(call)
        self.errors[call] = error


def call(name: str = "", amount: int = 1, least: int = 0, tenant: str = "acme") -> bytes:
    """Return a request as it comes."""
    message = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, operation_id=name)
    message.min_durability = least  # type: ignore[assignment]
    message.items.add(meter="requests", amount=amount)
    return message.SerializeToString()


class Front:
    """The calls' way in front of a sidecar with leases."""

    def __init__(self, it: Leasing) -> None:
        self.it = it
        self.leased = LeasedCalls(it.leases)
        self.method = methods_of(it.admit, self.leased)[f"{QUOTA}/CheckAndConsume"]

    def take(self, *calls: bytes) -> tuple[Answers, list[int]]:
        """Return the answers to calls, and those that are left, by their places."""
        answers = Answers()
        some = [(place, data, FOREVER) for place, data in enumerate(calls)]
        return answers, [number for number, _, _ in self.leased.take(some, answers)]

    async def hot(self, spare: int) -> None:
        """Have the content of plain calls known, and units leased, with so many to spare."""
        await self.it.heat()
        for _ in range(2_000):
            if self.it.spare() >= spare:
                for _ in range(MET_MIN):
                    self.take(call())
                return
            await self.it.calls(1)
        raise AssertionError(f"nothing to spare: {self.it.told}")


async def front(*limits: Limit, spare: int = 40, journal: Journal | None = None) -> Front:
    """Return a front that grants."""
    made = Front(Leasing(*(limits or (window(limit=PLENTY),)), journal=journal, view=CatalogHeld))
    await made.hot(spare)
    return made


def only(some: Sequence[T]) -> T:
    """Return the one of them."""
    (one,) = some
    return one


async def test_reply_is_that_of_a_call_by_itself() -> None:
    """Every field of a reply that was granted here is as the flow tells of it."""
    it = await front(window(limit=PLENTY), window("small", PLENTY, warn_at_ppm=(500_000,)))
    answers, rest = it.take(call("op-number-1"))
    assert not rest
    reply = only([*answers.replies.values()])
    other = (await it.it.call("op-number-2")).decision
    assert other.leased
    assert [each.limit_id for each in reply.limits] == [each.limit_id for each in other.readings]
    for mine, next_one in zip(reply.limits, other.readings, strict=True):
        assert mine.used == next_one.used - 1
        assert mine.remaining == next_one.remaining + 1
        assert (mine.limit, mine.meter) == (next_one.limit, next_one.meter)
        assert mine.state == limit_pb2.LIMIT_STATE_OK
        assert mine.resets_at.ToMicroseconds() == next_one.resets_at_us
        assert mine.tenant_id == "acme"
    assert reply.allowed
    assert [*reply.event_ids] == ["op-number-1:0"]
    assert not any([reply.replayed, reply.degraded, reply.refused_by])


async def test_what_was_granted_is_recorded_once() -> None:
    """Events and counters are those of the calls, each under its own id, with its own time."""
    it = await front()
    names = [f"operation-{number}" for number in range(20)]
    answers, rest = it.take(*(call(name) for name in names))
    granted = [name for place, name in enumerate(names) if place not in rest]
    assert len(answers.replies) == len(granted) == 20
    await it.it.close()
    events = {event.operation_id: event for event in recorded_events(it.it.inner)}
    assert set(granted) <= events.keys()
    for name in granted:
        assert events[name].event_id == f"{name}:0"
        # The sidecar's clock is a float of seconds.
        assert abs(events[name].event_time.ToMicroseconds() - it.it.time.us) <= 1
    assert it.it.counted() == it.it.told["allowed"] == len(events)


async def test_calls_without_ids_are_recorded_each() -> None:
    """Each gets an id of its own, by which its event is found."""
    it = await front()
    answers, rest = it.take(*[call()] * 20)
    assert not rest
    told = {only([*reply.event_ids]) for reply in answers.replies.values()}
    assert len(told) == 20
    await it.it.close()
    events = recorded_events(it.it.inner)
    assert told <= {event.event_id for event in events}
    assert it.it.counted() == it.it.told["allowed"] == len(events)


async def test_made_id_that_is_met_elsewhere_is_counted_once() -> None:
    """A call whose id was made here, and came to another sidecar before it was settled."""
    it = await front()
    answers, _ = it.take(*[call()] * 5)
    event_id = only(answers.replies[3].event_ids)
    other = Leasing(window(limit=PLENTY), inner=it.it.inner, time=it.it.time, view=CatalogHeld)
    await other.call(event_id.removesuffix(":0"))
    await it.it.close()
    events = recorded_events(it.it.inner)
    assert it.it.told["repeated"] == 1
    assert it.it.counted() == len(events)
    assert it.it.told["recorded"] + it.it.told["repeated"] == it.it.told["granted"]


async def test_one_bad_call_is_left_by_itself() -> None:
    """What cannot be read, is not asked often, or is asked too late is left; the others are not."""
    it = await front()
    late = (9, call("too-late-by-far"), -1.0)
    answers = Answers()
    some = [b"\xff\xff", call("good-one-1"), call("new content", amount=3), call("good-one-2")]
    calls = [*((place, data, FOREVER) for place, data in enumerate(some)), late]
    rest = it.leased.take(calls, answers)
    assert [number for number, _, _ in rest] == [0, 2, 9]
    assert answers.replies.keys() == {1, 3}
    assert [calls[0], calls[2], late] == [*rest], "what is left is as it came"


async def test_repeats_get_the_first_answer() -> None:
    """A repeat, in the same list or later, is answered as the first call was, and charged once."""
    it = await front()
    answers = Answers()
    it.method([(place, call("twice-the-same"), FOREVER) for place in range(2)], answers)
    it.method([(2, call("twice-the-same"), FOREVER)], answers)
    it.method([(3, call("twice-the-same", amount=2), FOREVER)], answers)
    first = answers.replies[0]
    first.replayed = True
    assert answers.replies[1] == answers.replies[2] == first
    assert isinstance(answers.errors[3], OperationIdReused)
    await it.it.close()
    assert it.it.counted() == len(recorded_events(it.it.inner))


async def test_short_ids_take_the_other_way() -> None:
    """An id that could be found within something else is granted all the same, by itself."""
    it = await front()
    answers = Answers()
    it.method([(place, call(name), FOREVER) for place, name in enumerate("abc")], answers)
    assert len(answers.replies) == 3
    await it.it.close()
    assert {"a", "b", "c"} <= {each.operation_id for each in recorded_events(it.it.inner)}


async def test_catalog_decides_for_the_next_call() -> None:
    """Nothing is granted from what was leased under another catalog, or for another tenant."""
    it = await front()
    it.it.view.catalog = replace(catalog(window(limit=1)), version=2)
    _, rest = it.take(call("after-the-change"))
    assert rest == [0]


async def test_written_before_it_is_told() -> None:
    """A reply says BUFFERED once the journal has it, and JOURNAL where that is asked for."""
    disk = FakeDisk()
    it = await front(journal=FakeJournal(disk))
    it.take(*[call(least=Durability.JOURNAL)] * 4)
    answers, rest = it.take(call("operation-1"), call("operation-2", least=Durability.JOURNAL))
    assert not rest
    told = [int(answers.replies[place].durability) for place in range(2)]
    assert told == [Durability.BUFFERED, Durability.JOURNAL]
    names = [each.entry.operation.operation_id for each in disk.stored]
    assert {"operation-1", "operation-2"} <= set(names[: disk.synced])


async def test_what_no_disk_has_is_not_told() -> None:
    """While the journal takes nothing nothing is granted; what it lost is told as not durable."""
    disk = FakeDisk()
    journal = FakeJournal(disk)
    it = await front(journal=journal)
    taken = journal.append
    journal.append = lambda entry: 0 * taken(entry)  # type: ignore[method-assign]
    answers, _ = it.take(call("operation-1"))
    assert isinstance(answers.errors[0], NotDurable)
    disk.failing = True
    _, rest = it.take(call("operation-2"))
    assert rest == [0]


@pytest.mark.parametrize("together", [1, 7])
async def test_both_ways_grant_alike(together: int) -> None:
    """The same calls through the front and one by one leave the same counters and events."""
    found: list[dict[str, int]] = []
    amounts = [1 + number * number % 3 for number in range(42)]
    for through in (True, False):
        it = await front(spare=100)
        for start in range(0, len(amounts), together):
            some = range(start, start + together)
            answers = Answers()
            if through:
                calls = [(n, call(f"operation-{n}", amounts[n]), FOREVER) for n in some]
                it.method(calls, answers)
                assert len(answers.replies) == len(calls)
            else:
                for number in some:
                    await it.it.call(f"operation-{number}", amounts[number])
        await it.it.close()
        events = recorded_events(it.it.inner)
        assert it.it.counted() == sum(each.amount for each in events)
        named = {each.operation_id: each.amount for each in events}
        found.append({name: named[name] for name in named if name.startswith("operation-")})
    assert found[0] == found[1] == {f"operation-{n}": each for n, each in enumerate(amounts)}
