"""What every `RebuildLedger` and `Corrections` promises, asked of the fakes and of Postgres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.corrections import PostgresCorrections
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import SourceId, TenantId
from tallygate.ports import Ledger, LedgerBatch, Persisted
from tallygate.ports.epochs import Seen
from tallygate.ports.rebuild import Corrections, RebuildLedger
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.rebuild import FakeCorrections, FakeRebuildLedger
from tallygate.testing.recount import FakeUsageSnapshots
from tests.servers import eventually
from tests.usage_events import event, span

OLD, NEW = SourceId("car.e1"), SourceId("car.e2")


@dataclass(frozen=True, slots=True)
class Subject:
    """A ledger, what rebuilding asks of it, and what counters are due."""

    ledger: Ledger
    rebuild: RebuildLedger
    corrections: Corrections

    async def store(self, *events: UsageEvent) -> Persisted:
        """Store events with their numbers."""
        ranges = tuple(
            span(each.source_seq, each.source_seq, each.source_lane, each.source_id)
            for each in events
        )
        return await self.ledger.persist(LedgerBatch(events, ranges=ranges))


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """A ledger."""
    if dsn is None:
        ledger, now_us = FakeLedger(), SystemClock().now_us
        rebuild = FakeRebuildLedger(FakeUsageSnapshots(ledger), now_us)
        yield Subject(ledger, rebuild, FakeCorrections(ledger, now_us))
        return
    postgres = Postgres(dsn)
    parts = PostgresRebuildLedger(postgres), PostgresCorrections(postgres)
    yield Subject(PostgresLedger(postgres), *parts)
    await postgres.close()


def counted(number: int, source: SourceId = OLD, **fields: object) -> UsageEvent:
    """Return an event numbered by a source, in the epoch that its name says."""
    epoch = source.rpartition(".")[2]
    return event(number, **{"source_id": source, "counter_epoch": epoch, **fields})


async def test_one_leads(subject: Subject) -> None:
    """Who leads keeps the lead while it asks in time; who waits gets it afterwards."""
    assert await subject.rebuild.lead("one", 60_000)
    assert not await subject.rebuild.lead("two", 60_000)
    # From now on for no time at all.
    assert await subject.rebuild.lead("one", -1)
    assert await subject.rebuild.lead("two", 60_000)
    assert not await subject.rebuild.lead("one", 60_000)


async def test_closing_sees_all_that_was_stored(subject: Subject) -> None:
    """A closing has usage and numbers of its lanes as they are then; later ones are not in it."""
    assert await subject.rebuild.empty()
    await subject.store(counted(1), counted(3), counted(1, NEW, event_id="x", source_lane=4))
    assert not await subject.rebuild.empty()
    assert await subject.rebuild.epochs() == {}
    async with subject.rebuild.close({0: "e2"}) as closing:
        await subject.store(counted(7))
        assert closing.seen == (Seen(OLD, 0, ((1, 1), (3, 3))),)
        assert await closing.usage.tenants("", 9) == [TenantId("acme")]
    assert await subject.rebuild.epochs() == {(0, "e2"): True}
    async with subject.rebuild.close({0: "e2"}):
        pass
    assert await subject.rebuild.epochs() == {(0, "e2"): True}
    async with subject.rebuild.close({0: "e3", 4: "e4"}) as closing:
        assert [each.source_id for each in closing.seen] == [OLD, NEW]
    epochs = {(0, "e2"): False, (0, "e3"): True, (4, "e4"): True}
    assert await subject.rebuild.epochs() == epochs


async def test_knows_the_highest_numbers(subject: Subject) -> None:
    """Of the epochs that are asked for alone."""
    await subject.store(counted(1), counted(9), counted(4, NEW, event_id="x", source_lane=2))
    assert await subject.rebuild.highest(["e1"]) == {(OLD, 0): 9}
    assert await subject.rebuild.highest(["e1", "e2"]) == {(OLD, 0): 9, (NEW, 2): 4}
    assert await subject.rebuild.highest([]) == {}


async def test_tells_what_is_seen(subject: Subject) -> None:
    """Storing says what the ledger has by then of the lanes it stored numbers of."""
    await subject.store(counted(1), counted(2))
    stored = await subject.store(counted(4), counted(1, NEW, event_id="x"))
    assert stored.seen == (Seen(OLD, 0, ((1, 2), (4, 4))), Seen(NEW, 0, ((1, 1),)))


async def test_what_comes_late_is_due(subject: Subject) -> None:
    """An event of a closed epoch is added to the counters, once; one of the new epoch is not."""
    async with subject.rebuild.close({0: "e2"}):
        pass
    late = counted(5, amount=7)
    assert (await subject.store(late, counted(1, NEW, event_id="x"))).corrections == 1
    assert (await subject.store(late)).corrections == 0
    (due,) = await subject.corrections.due(10)
    assert (due.shard, due.epoch, due.takes_back) == (0, "e2", False)
    rest: dict[str, Any] = {"operation_id": late.operation_id, "counter_epoch": late.counter_epoch}
    assert replace(due.event, **rest) == late


async def test_what_was_counted_twice_is_due(subject: Subject) -> None:
    """A duplicate under other numbers is taken back, once; one that is redelivered is not."""
    first, again = counted(1), counted(8, NEW, event_id="event-1")
    assert (await subject.store(first)).corrections == 0
    assert (await subject.store(first)).corrections == 0
    assert (await subject.store(again, counted(9))).corrections == 1
    assert (await subject.store(again)).corrections == 0
    (due,) = await subject.corrections.due(10)
    assert (due.epoch, due.takes_back, due.event.source_seq) == ("e2", True, 8)


async def test_a_duplicate_within_a_batch_is_due(subject: Subject) -> None:
    """Of two that come together under other numbers, one is stored and the other taken back."""
    stored = await subject.store(counted(1), counted(2, event_id="event-1"))
    assert (stored.events, stored.duplicates, stored.corrections) == (1, 1, 1)


async def test_corrections_are_finished_once(subject: Subject) -> None:
    """What is finished is due no more; the oldest come first, and say that they were tried."""
    async with subject.rebuild.close({0: "e2"}):
        pass
    await subject.store(*(counted(number) for number in (1, 2, 3)))
    assert await subject.corrections.depth() == 3
    first, second = await subject.corrections.due(2)
    assert (first.event.source_seq, first.tried_s) == (1, 0.0)
    await subject.corrections.trying([first.number])

    async def tried() -> bool:
        return (await subject.corrections.due(1))[0].tried_s > 0

    # In memory, a clock may be asked twice in one microsecond.
    await eventually(tried, what="a correction that was tried a while ago")
    done = {first.number: "applied", second.number: "superseded"}
    assert await subject.corrections.finish(done) == 2
    assert await subject.corrections.finish(done) == 0
    assert await subject.corrections.depth() == 1
    (third,) = await subject.corrections.due(2)
    assert third.event.source_seq == 3


async def test_corrections_may_be_due_again(subject: Subject) -> None:
    """Those that were applied, and tried lately: a copy of the counters may not have them."""
    async with subject.rebuild.close({0: "e2"}):
        pass
    await subject.store(*(counted(number) for number in (1, 2, 3)))
    first, second, third = await subject.corrections.due(3)
    await subject.corrections.trying([first.number, second.number, third.number])
    await subject.corrections.finish({first.number: "applied", second.number: "superseded"})
    assert await subject.corrections.again(0.0) == 0
    assert await subject.corrections.again(600.0) == 1
    assert [each.number for each in await subject.corrections.due(3)] == [
        first.number,
        third.number,
    ]
    assert await subject.corrections.again(600.0) == 0
