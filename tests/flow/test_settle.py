"""Many grants in one operation: taken whole or not at all, whatever happens between two steps."""

from collections.abc import Sequence

import pytest

from tallygate.domain.decision import Mode, Operation
from tallygate.domain.given import calls_of
from tallygate.flow.lease import LeaseOptions
from tallygate.gen.v1 import event_pb2
from tallygate.testing.journal import FakeDisk, FakeJournal
from tests.builders import window
from tests.flow.lease_parts import Leasing, recorded_events

PLENTY = 1_000_000
EXPIRED_US = 3_000_000


async def granted(it: Leasing, count: int = 6) -> list[str]:
    """Have calls granted that are not settled; return their ids."""
    await it.heat()
    for _ in range(500):
        if it.spare() >= count:
            break
        # Ten thousand a second: leases grow.
        await it.calls(20, step_us=100)
    await it.settle()
    names = [f"{it.prefix}-call-{number}" for number in range(count)]
    for name in names:
        assert (await it.call(name)).decision.leased
    return names


def names_in(it: Leasing) -> list[str]:
    """Return the operation ids of all events, each as often as it is there."""
    return [
        str(of)
        for accounts in it.inner.accounts.values()
        for entry in accounts.stream
        for record in entry.records
        for of in _ids(record.payload)
    ]


def _ids(payload: bytes) -> Sequence[str]:
    return [each.operation_id for each in event_pb2.UsageEventBatch.FromString(payload).events]


async def test_one_operation_settles_many() -> None:
    """All grants of a lease go in one operation, and in one field of the stream's entry."""
    it = Leasing(window(limit=PLENTY))
    names = await granted(it)
    before = it.store.asked.total()
    entries = len(it.accounts.stream)
    await it.settle()
    settling = it.store.asked.total() - before
    assert settling <= 2, "one settlement, and perhaps a lease to go on with"
    (entry,) = it.accounts.stream[entries:]
    (record,) = entry.records
    assert record.event_count == len(names)
    assert [*_ids(record.payload)] == names


async def test_repeat_elsewhere_before_it_is_settled_is_counted_once() -> None:
    """Two sidecars grant the same call from leases of theirs: its units are used up once."""
    it = Leasing(window(limit=PLENTY))
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    await other.heat()
    await granted(it)
    assert (await it.call("twice-the-same")).decision.leased
    while other.spare() < 1:
        await other.calls(1)
    assert (await other.call("twice-the-same")).decision.leased
    await it.close()
    await other.close()
    assert it.told["repeated"] + other.told["repeated"] == 1
    assert names_in(it).count("twice-the-same") == 1
    assert it.counted() == len(recorded_events(it.inner)) == len(names_in(it))


async def test_conflict_takes_out_one_call_alone() -> None:
    """An id that was used elsewhere with other content is no other grant's matter."""
    it = Leasing(window(limit=PLENTY))
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    names = await granted(it)
    assert (await it.call("twice-the-same")).decision.leased
    await other.call("twice-the-same", amount=5)
    await it.close()
    assert it.told["conflict"] == 1
    assert set(names) <= set(names_in(it))
    amounts = [event.amount for event in recorded_events(it.inner)]
    assert it.counted() == sum(amounts)


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("turns", ["nothing", "expires", "new epoch"])
async def test_no_step_is_lost_or_done_twice(lost: str, turns: str) -> None:
    """The store dies before it takes a batch, or before it answers; the lease is there, or over."""
    it = Leasing(window(limit=PLENTY))
    names = await granted(it)
    if lost == "before":
        it.inner.down = True
    it.store.deaf = lost == "after"
    await it.settle()
    if turns == "expires":
        it.time.us += EXPIRED_US
    it.inner.down = it.store.deaf = False
    if turns == "new epoch":
        (shard,) = [number for number, each in it.inner.accounts.items() if each.accounts]
        await it.inner.stages.renew(shard, it.inner.accounts[shard].epoch)
        await it.call()
    await it.close()
    # A lease of which nobody knows is nobody's: it expires.
    it.time.us += EXPIRED_US
    last = await it.call()
    assert last.decision.allowed
    found = names_in(it)
    recorded = {event.operation_id for event in recorded_events(it.inner)}
    assert set(names) <= recorded
    if turns != "new epoch":
        assert len(found) == len(set(found)), "nothing is in the stream twice"
        assert it.counted() == len(recorded) == it.told["allowed"]


async def test_next_process_counts_what_a_batch_had() -> None:
    """A process that dies with a batch on its way leaves all of it to the next, call by call."""
    disk = FakeDisk()
    it = Leasing(window(limit=PLENTY), journal=FakeJournal(disk))
    names = await granted(it)
    it.inner.down = True
    await it.settle()
    journal = FakeJournal(disk)
    marks = journal.pending()
    found = await journal.read(marks)
    assert [stored.entry.operation.operation_id for stored in found] == names
    assert {stored.entry.operation.mode for stored in found} == {Mode.CONSUME}
    for stored in found:
        assert journal.pending()
        journal.resolve(stored.mark)
    assert not journal.pending()


async def test_settled_is_forgotten_by_the_journal() -> None:
    """Once the store has a batch, none of it would be resubmitted."""
    disk = FakeDisk()
    journal = FakeJournal(disk)
    it = Leasing(window(limit=PLENTY), journal=journal)
    await granted(it)
    assert journal.pending()
    await it.settle()
    assert not journal.pending()


async def test_long_queues_are_settled_batch_by_batch() -> None:
    """A lease that has granted more than a batch says so, and no id is twice in one."""
    it = Leasing(window(limit=PLENTY), options=LeaseOptions(unsettled_max=10_000))
    seen: list[Operation] = []
    decide = it.store.decide

    async def watching(operations: Sequence[Operation]) -> list[object]:
        seen.extend(operations)
        return list(await decide(operations))

    it.store.decide = watching  # type: ignore[method-assign, assignment]
    await granted(it, 1_100)
    assert (await it.leases.run_once()).more
    while (await it.leases.run_once()).more:
        pass
    await it.close()
    sizes = [[of for of, *_ in calls_of(each)] for each in seen]
    assert max(map(len, sizes)) <= 256
    assert all(len(ids) == len(set(ids)) for ids in sizes)
    assert it.counted() == it.told["allowed"] == len(names_in(it))
