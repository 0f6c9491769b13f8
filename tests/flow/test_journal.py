"""What a sidecar's journal is for: durability that is named truly, and what it hands in."""

import asyncio
import copy

import pytest

from tallygate.domain.catalog import LimitKind, OnOutage
from tallygate.domain.errors import BackendUnavailable, NotDurable, Overloaded
from tallygate.domain.request import ConsumeResult, Durability, RecordResult
from tallygate.domain.window import Period
from tallygate.ports.epochs import Seen, Stage
from tests.builders import window
from tests.flow.journal_parts import (
    SOURCE,
    Installation,
    JournaledSidecar,
)
from tests.flow.lease_parts import recorded_events

SOFT = window(limit=1_000, on_outage=OnOutage.ALLOW)
TEN = window(limit=1_000, on_outage=OnOutage.LOCAL_BUDGET, local_budget=10)
HARD = window(limit=1_000)


def level(result: object) -> Durability:
    """Return the durability of an answer, which must be one."""
    assert isinstance(result, ConsumeResult | RecordResult), result
    return result.durability


def ids(at: Installation) -> list[str]:
    """Return the ids of the events in the streams."""
    return sorted(event.event_id for event in recorded_events(at.store))


async def test_answers_name_what_was_reached() -> None:
    """A decision is in the store, a record on the disk too; more is waited for when asked."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    assert level(await it.consume("a")) is Durability.REDIS
    assert level(await it.record("b")) is Durability.JOURNAL
    assert level(await it.consume("c", least=Durability.JOURNAL)) is Durability.JOURNAL
    assert level(await it.record("d", least=Durability.BUFFERED)) is Durability.JOURNAL
    it.at.store.down = True
    assert level(await it.consume("e")) is Durability.BUFFERED
    assert level(await it.consume("f", least=Durability.REDIS)) is Durability.JOURNAL
    assert level(await it.record("g")) is Durability.JOURNAL
    assert isinstance(await it.record("h", least=Durability.POSTGRES), BackendUnavailable)


async def test_the_ledger_is_waited_for() -> None:
    """`POSTGRES` is said when the ledger's own word covers the event, and not before."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    waiting = asyncio.create_task(it.record("a", least=Durability.POSTGRES))
    state = None
    while state is None:
        await asyncio.sleep(0)
        states = await it.at.stages.states()
        state = next((each for each in states if each.given), None)
    assert not waiting.done()
    await it.ledger_has((1, 1))
    assert level(await waiting) is Durability.POSTGRES


async def test_a_ledger_that_does_not_come_leaves_the_event_accepted() -> None:
    """The caller is told that it is not durable enough; its retry finds it accepted."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    assert isinstance(await it.record("a", least=Durability.POSTGRES), NotDurable)
    again = await it.record("a")
    assert isinstance(again, RecordResult)
    assert again.replayed
    assert ids(it.at) == ["a"]


async def test_a_failing_disk_leaves_the_store() -> None:
    """Replies then say `REDIS`; whoever asks for more is told that it was not reached."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    it.at.disk.failing = True
    assert level(await it.record("a")) is Durability.REDIS
    assert level(await it.consume("b")) is Durability.REDIS
    assert isinstance(await it.record("c", least=Durability.JOURNAL), NotDurable)
    it.at.disk.failing = False
    # The retry is entered: the disk is there again.
    assert level(await it.record("c", least=Durability.JOURNAL)) is Durability.JOURNAL
    assert ids(it.at) == ["a", "b:0", "c"]


async def test_without_store_and_disk_nothing_is_accepted() -> None:
    """When both are gone the caller keeps what it has, and is told when to come again."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    it.at.disk.failing = it.at.store.down = True
    for answer in (await it.record("a"), await it.consume("b")):
        assert isinstance(answer, Overloaded)
        assert answer.retry_after_us
    it.at.disk.failing = it.at.store.down = False
    await it.recover()
    assert await it.used() == 0


@pytest.mark.parametrize("power", [True, False], ids=["power lost", "killed"])
async def test_a_crash_in_an_outage_loses_nothing_promised(*, power: bool) -> None:
    """The successor counts each grant and each record once, those that it repeats included."""
    at = Installation.fresh()
    it = JournaledSidecar(at, SOFT)
    await it.consume("before", 1)
    at.store.down = True
    for number in range(5):
        assert level(await it.record(f"r{number}", 2)) is Durability.JOURNAL
        answer = await it.consume(f"c{number}", 3, Durability.JOURNAL)
        assert level(answer) is Durability.JOURNAL
    if power:
        at.disk.lose_power()
    after = JournaledSidecar(at, SOFT)
    await after.resume()
    assert len(after.backlog) == 10
    await after.record("r0", 2)
    again = await after.consume("c0", 3)
    assert isinstance(again, ConsumeResult)
    assert again.decision.replayed
    at.store.down = False
    await after.recover()
    assert await after.used() == 1 + 5 * 2 + 5 * 3
    assert len(ids(at)) == 11
    assert not after.journal.pending()


async def test_budgets_outlive_the_process() -> None:
    """A successor does not begin its budget anew while the grants before it are not counted."""
    at = Installation.fresh()
    at.store.down = True
    it = JournaledSidecar(at, TEN)
    for number in range(2):
        answer = await it.consume(f"a{number}", 4)
        assert isinstance(answer, ConsumeResult)
        assert answer.decision.allowed
    after = JournaledSidecar(at, TEN)
    await after.resume()
    # The first to find the store away is not refused: the store may have granted it.
    assert isinstance(await after.consume("first", 4), BackendUnavailable)
    refused = await after.consume("b", 4)
    assert isinstance(refused, ConsumeResult)
    assert not refused.decision.allowed
    allowed = await after.consume("c", 2)
    assert isinstance(allowed, ConsumeResult)
    assert allowed.decision.allowed


async def test_records_beyond_memory_are_on_the_disk_alone() -> None:
    """An outage may outlast memory: what was recorded is read back in turn."""
    at = Installation.fresh()
    it = JournaledSidecar(at, SOFT, memory_max=3)
    at.store.down = True
    for number in range(10):
        assert level(await it.record(f"r{number}")) is Durability.JOURNAL
    assert isinstance(await it.consume("c"), Overloaded)
    assert len(it.backlog) == 10
    at.store.down = False
    await it.recover()
    assert await it.used() == len(ids(at)) == 10
    assert not it.journal.pending()


async def test_what_the_ledger_has_is_forgotten() -> None:
    """Only what it has not stays, whatever its numbers."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    for number in range(5):
        await it.record(f"r{number}")
    await it.ledger_has((1, 2), (4, 4))
    await it.hand_in.run_once()
    assert list(it.journal.unconfirmed().values()) == [((3, 3), (5, 5))]


async def test_lost_events_are_handed_in_under_new_numbers() -> None:
    """After a loss the stream has again what the ledger lacks, and nothing that it has."""
    at = Installation.fresh()
    it = JournaledSidecar(at, HARD)
    for number in range(4):
        await it.record(f"r{number}", 5)
    await it.consume("c", 7)
    await it.ledger_has((1, 2))
    [(source, shard)] = it.journal.unconfirmed()
    at.lose_counters()
    # Nothing is handed in before the ledger has said what it has.
    await it.hand_in.run_once()
    assert ids(at) == []
    epoch = at.stages.state(shard).epoch
    assert await at.seen.announced(shard, epoch) == {SOURCE: False}
    await at.advance(Stage.SEEN)
    await it.hand_in.run_once()
    assert ids(at) == ["c:0", "r2", "r3"]
    assert at.seen.handed_in == [Seen(source, shard, ((3, 5),))]
    assert await at.seen.announced(shard, epoch) == {SOURCE: True}
    await at.advance(Stage.OPEN)
    assert await it.used() == 5 + 5 + 7
    # A retry of what was handed in is known.
    again = await it.consume("c", 7)
    assert isinstance(again, ConsumeResult)
    assert again.decision.replayed
    await it.hand_in.run_once()
    assert await it.used() == 17


async def test_a_copy_that_had_not_heard_of_a_number_is_found_without_a_call() -> None:
    """A replica that lagged took over, and nobody calls: the journal knows what it misses."""
    it = JournaledSidecar(Installation.fresh(), SOFT)
    await it.record("a")
    await it.hand_in.run_once()
    [before] = [each for each in await it.at.stages.states() if each.given]
    for numbers in it.at.stages.given.values():
        numbers.clear()
    await it.hand_in.run_once()
    after = (await it.at.stages.states())[before.shard]
    assert after.epoch != before.epoch


async def test_numbers_that_come_again_are_told_of_until_the_ledger_knows() -> None:
    """What was told is lost with the stream it was told in: it is told again, and then no more."""
    at = Installation.fresh()
    it = JournaledSidecar(at, SOFT)
    await it.record("a")
    [(source, shard)] = it.journal.unconfirmed()
    at.lose_counters()
    await at.advance(Stage.OPEN)
    await it.hand_in.run_once()
    await it.hand_in.run_once()
    assert at.seen.handed_in == [Seen(source, shard, ((1, 1),))]
    # The entry is lost with an epoch that has none of its own events any more.
    at.seen.handed_in.clear()
    at.lose_counters()
    await at.advance(Stage.OPEN)
    await it.hand_in.run_once()
    assert Seen(source, shard, ((1, 1),)) in at.seen.handed_in
    # With a copy of this epoch that lagged: after some seconds, ever more seldom.
    at.seen.handed_in.clear()
    await it.hand_in.run_once()
    assert at.seen.handed_in == []
    at.time.us += 11_000_000
    await it.hand_in.run_once()
    await it.hand_in.run_once()
    assert at.seen.handed_in.count(Seen(source, shard, ((1, 1),))) == 1
    at.seen.handed_in.clear()
    await at.seen.tell([Seen(source, shard, ((1, 1),))])
    at.time.us += 700_000_000
    await it.hand_in.run_once()
    assert Seen(source, shard, ((1, 1),)) not in at.seen.handed_in


async def test_a_reservation_that_a_copy_has_not_is_made_again() -> None:
    """It has no number that could be missed: another server's answers are reason enough."""
    at = Installation.fresh()
    it = JournaledSidecar(at, HARD)
    await it.hand_in.run_once()
    copied = copy.deepcopy((at.store.accounts, at.stages.given))
    kept = await it.reserve("kept", 40)
    at.store.accounts, at.stages.given = copied
    at.stages.restart()
    assert await it.used() == 0
    await it.hand_in.run_once()
    assert await it.used() == 40
    # Where nothing was lost, nothing is made twice.
    at.stages.restart()
    await it.hand_in.run_once()
    assert await it.used() == 40
    await it.commit(kept.reservation_id, 30)
    assert await it.used() == 30


async def test_a_crash_while_handing_in_counts_once() -> None:
    """The successor hands in all of it again; the store knows what it has by the ids."""
    at = Installation.fresh()
    it = JournaledSidecar(at, HARD)
    for number in range(4):
        await it.record(f"r{number}", 5)
    at.lose_counters()
    await at.advance(Stage.SEEN)
    # It dies before the ledger is told of the old numbers.
    at.seen.down = True
    with pytest.raises(BackendUnavailable):
        await it.hand_in.run_once()
    at.seen.down = False
    after = JournaledSidecar(at, HARD)
    await after.hand_in.run_once()
    await at.advance(Stage.OPEN)
    assert await after.used() == 20
    assert ids(at) == ["r0", "r1", "r2", "r3"]
    assert at.seen.handed_in[0].ranges == ((1, 4),)


@pytest.mark.parametrize("ahead_s", [0, -3_600, 3_600])
async def test_a_live_reservation_is_made_again(ahead_s: int) -> None:
    """It keeps its id and what is left of its time by the store's clock, to be settled."""
    at = Installation.fresh()
    at.ahead_us = ahead_s * 1_000_000
    it = JournaledSidecar(at, HARD)
    kept = await it.reserve("kept", 40)
    short = await it.reserve("short", 3, ttl_us=1_000_000)
    done = await it.reserve("done", 5)
    await it.commit(done.reservation_id, 5)
    at.lose_counters()
    at.time.us += 2_000_000
    await at.advance(Stage.SEEN)
    await it.hand_in.run_once()
    await at.advance(Stage.OPEN)
    # What was committed is handed in as its event; what has ended holds nothing.
    assert await it.used() == 40 + 5
    assert short.decision.allowed
    at.time.us += 30_000_000
    assert await it.used() == 40 + 5
    await it.commit(kept.reservation_id, 50)
    assert await it.used() == 50 + 5
    after = JournaledSidecar(at, HARD)
    await after.hand_in.run_once()
    assert after.journal.held() == {}


async def test_what_was_taken_back_is_taken_back_again() -> None:
    """Once limits are decided again, a refund that the ledger lacks lowers counter and bill."""
    at = Installation.fresh()
    it = JournaledSidecar(at, HARD)
    await it.consume("c", 10)
    await it.refund("c:0", 4)
    at.lose_counters()
    await at.advance(Stage.SEEN)
    await it.hand_in.run_once()
    await at.advance(Stage.OPEN)
    await it.hand_in.run_once()
    assert await it.used() == 6
    assert not any(it.journal.unconfirmed().values()) or ids(at) == ["back-c:0:0", "c:0"]
    assert sum(event.amount for event in recorded_events(at.store)) == 6


async def test_a_window_that_has_passed_is_left_alone() -> None:
    """An event of last month's goes to the ledger, and not to this month's counter."""
    at = Installation.fresh()
    it = JournaledSidecar(at, HARD)
    await it.record("old", 5)
    at.lose_counters()
    at.time.us += 70 * 86_400_000_000
    await at.advance(Stage.SEEN)
    await it.hand_in.run_once()
    await at.advance(Stage.OPEN)
    assert await it.used() == 0
    assert ids(at) == ["old"]


async def test_leased_grants_outlive_the_process() -> None:
    """What was granted from a lease and not settled is counted by the successor, once."""
    at = Installation.fresh()
    limit = window(limit=1_000_000, kind=LimitKind.WINDOW, period=Period.MONTH)
    it = JournaledSidecar(at, limit)
    granted, leased = 0, 0
    for number in range(400):
        answer = await it.consume(f"w{number}", admit=it.leasing)
        assert isinstance(answer, ConsumeResult)
        granted += answer.decision.allowed
        at.time.us += 1_000
        if number % 20 == 0:
            await it.leases.run_once()
    while leased < 5:
        answer = await it.consume(f"x{granted}", admit=it.leasing)
        assert isinstance(answer, ConsumeResult)
        granted += answer.decision.allowed
        if answer.decision.leased:
            leased += 1
            assert answer.durability is Durability.BUFFERED
    assert it.leases.unsettled >= 5
    # It dies; its leases end by themselves.
    after = JournaledSidecar(at, limit)
    await after.resume()
    at.time.us += 10_000_000
    await after.recover()
    assert await after.used() == granted
    assert len(ids(at)) == granted
