"""Facts about the queue in which tenants take turns, and what callers hear when it is full."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.clock import SystemClock
from tallygate.domain.decision import Decided, Operation, Outcome, Reservation
from tallygate.domain.errors import Overloaded, TallygateError
from tallygate.domain.ids import TenantId
from tallygate.flow.fair import TURNS, FairQueue, Part
from tallygate.flow.gather import Awaited, Gather
from tallygate.flow.pressure import PUSHBACK_MAX_S, PUSHBACK_MIN_S, Pressure
from tallygate.ports import OperationKey, Recorded, ReservationKey
from tests.builders import check, window

HOT = TenantId("hot")
BATCH = 128


class Ticking:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def monotonic(self) -> float:
        """Return the set time."""
        return self.at_s

    def now_us(self) -> int:
        """Return the set time."""
        return int(self.at_s * 1e6)


def of(tenant: str, count: int = 1, expires_at: float = float("inf")) -> list[Operation]:
    """Return so many questions of a tenant."""
    question = check([window()], tenant_id=TenantId(tenant), expires_at=expires_at)
    return [question] * count


def part(tenant: str, count: int = 1) -> Awaited:
    """Return so many operations of a tenant as one part."""
    return Awaited(TenantId(tenant), of(tenant, count), asyncio.get_running_loop().create_future())


def operations(parts: Sequence[Part]) -> Counter[str]:
    """Return how many operations each tenant has among the parts."""
    found: Counter[str] = Counter()
    for each in parts:
        found[each.tenant_id] += len(each.operations)
    return found


async def test_one_tenant_alone_fills_the_pipeline() -> None:
    """Turns are for those who share: alone, a tenant is served in order and without a bound."""
    queue = FairQueue(1_000, BATCH)
    parts = [part("hot") for _ in range(300)]
    assert not [gone for each in parts for gone in queue.put(each)]
    assert queue.take(BATCH) == parts[:BATCH]
    assert queue.take(BATCH) == parts[BATCH : 2 * BATCH]
    assert queue.take(BATCH) == parts[2 * BATCH :]
    assert not queue


async def test_a_newcomer_is_in_the_next_pipeline() -> None:
    """However much one tenant has waiting, another's call waits for no more than a turn of it."""
    queue = FairQueue(5_000, BATCH)
    for _ in range(4_000):
        queue.put(part("hot"))
    queue.take(BATCH)
    queue.put(part("cold"))
    taken = queue.take(BATCH)
    assert [each.tenant_id for each in taken].index(TenantId("cold")) <= BATCH // TURNS
    assert operations(taken) == {"hot": BATCH - 1, "cold": 1}


async def test_busy_tenants_share_alike_whatever_the_size_of_their_lists() -> None:
    """Lists of 100 get as much as single calls do, over some pipelines."""
    queue = FairQueue(100_000, BATCH)
    for _ in range(50):
        queue.put(part("lists", 100))
    for _ in range(5_000):
        queue.put(part("singles"))
    served: Counter[str] = Counter()
    for _ in range(40):
        served += operations(queue.take(BATCH))
    assert sum(served.values()) >= 40 * BATCH
    assert abs(served["lists"] - served["singles"]) <= 200


async def test_a_full_queue_takes_from_whoever_has_most() -> None:
    """A tenant that fills the queue gives way to others, newest first, and is refused itself."""
    queue = FairQueue(100, BATCH)
    hot = [part("hot") for _ in range(100)]
    for each in hot:
        assert queue.put(each) == []
    late = part("hot")
    assert queue.put(late) == [late]
    assert queue.put(part("cold")) == [hot[-1]]
    assert queue.put(part("lists", 10)) == hot[-2:-12:-1]
    assert queue.depth == 100


async def test_equals_refuse_newcomers_and_not_each_other() -> None:
    """When all have about alike, nobody is driven out for the sake of another."""
    queue = FairQueue(100, BATCH)
    for n in range(50):
        queue.put(part(f"tenant-{n}", 2))
    more = part("tenant-50", 2)
    assert queue.put(more) == [more]
    huge = part("huge", 101)
    assert queue.put(huge) == [huge]


async def test_what_nobody_waits_for_takes_no_place() -> None:
    """Calls that were given up are dropped on the way and counted out."""
    queue = FairQueue(100, BATCH)
    parts = [part("hot") for _ in range(10)]
    for each in parts:
        queue.put(each)
    for each in parts[:9]:
        each.answer.cancel()
    assert queue.take(BATCH) == parts[9:]
    assert queue.depth == 0


@given(seed=st.integers(0, 2**32))
async def test_whatever_comes_is_taken_once_or_refused_once(seed: int) -> None:
    """Over any order of coming, going and taking, no part is lost or doubled, and order holds."""
    dice = random.Random(seed)
    room = dice.choice([1, 7, 64, 100])
    queue = FairQueue(room, BATCH)
    put: list[Part] = []
    out: list[Part] = []
    taken: list[Part] = []
    for _ in range(200):
        if dice.random() < 0.7:
            one = part(f"t{dice.randrange(6) ** 2 // 5}", dice.choice([1, 1, 1, 3, 20]))
            put.append(one)
            out += queue.put(one)
        else:
            taken += queue.take(dice.choice([1, 8, 32]))
        assert queue.depth <= room
        assert queue.depth == sum(operations(put).values()) - sum(
            operations([*out, *taken]).values()
        )
    while queue:
        taken += queue.take(8)
    assert sorted(map(id, [*out, *taken])) == sorted(map(id, put))
    for tenant in {each.tenant_id for each in put}:
        own = [id(each) for each in taken if each.tenant_id == tenant]
        assert own == [id(each) for each in put if id(each) in set(own)]


class Gated:
    """A store that answers a pipeline each time it is let, and keeps what came in which order."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)
        self.pipelines: list[list[TenantId]] = []

    async def decide(self, asked: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Answer when let."""
        self.pipelines.append([each.tenant_id for each in asked])
        await self.let.acquire()
        return [Decided(True, 0, ()) for _ in asked]

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Nobody asks."""
        raise NotImplementedError

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Nobody asks."""
        raise NotImplementedError


@pytest.mark.timeout(20)
async def test_a_list_of_many_tenants_is_answered_by_each_one_s_turn() -> None:
    """A list's items come back in its order; those of a tenant that has too much are refused."""
    store = Gated()
    gather = Gather(store, SystemClock(), queue_max=100, batch_max=10)
    hot = [asyncio.ensure_future(gather.decide(of("hot"))) for _ in range(100)]
    while gather.depth < 100:
        await asyncio.sleep(0)
    mixed = asyncio.ensure_future(gather.decide([*of("a", 2), *of("hot"), *of("b", 2)]))
    running = asyncio.create_task(gather.run())
    for _ in range(50):
        store.let.release()
    answers = await mixed
    assert [isinstance(each, Overloaded) for each in answers] == [False, False, True, False, False]
    found = await asyncio.gather(*hot, return_exceptions=True)
    # The newest four made room.
    assert [isinstance(each, Overloaded) for each in found] == [False] * 96 + [True] * 4
    assert {"a", "b"} <= {*store.pipelines[0], *store.pipelines[1], *store.pipelines[2]}
    gather.close()
    await running


@pytest.mark.timeout(20)
async def test_who_could_not_be_answered_in_time_is_refused_at_once() -> None:
    """A long queue refuses what would wait past its deadline, and another tenant's call passes."""
    clock = Ticking()

    class Slow(Gated):
        async def decide(self, asked: Sequence[Operation]) -> list[Outcome | TallygateError]:
            clock.at_s += 1.0
            return await super().decide(asked)

    store = Slow()
    gather = Gather(store, clock, queue_max=1_000, batch_max=10)
    running = asyncio.create_task(gather.run())
    calls = [asyncio.ensure_future(gather.decide(of("hot"))) for _ in range(100)]
    for _ in range(4):
        store.let.release()
    while len(store.pipelines) < 5:
        await asyncio.sleep(0)
    assert gather.depth == 50
    # Five pipelines of a second each are ahead of it, and of the other tenant's only a turn.
    soon = clock.at_s + 2.0
    with pytest.raises(Overloaded) as told:
        await gather.decide(of("hot", expires_at=soon))
    assert told.value.retry_after_us is not None
    cold = asyncio.ensure_future(gather.decide(of("cold", expires_at=clock.at_s + 60)))
    for _ in range(50):
        store.let.release()
    assert len(await cold) == 1
    await asyncio.gather(*calls)
    gather.close()
    await running


def test_pushback_grows_with_what_is_refused_and_differs() -> None:
    """Those refused come back spread over the time that answering them all takes."""
    clock = Ticking()
    pressure = Pressure(clock, BATCH, chance=lambda: 0.5)
    assert pressure.refused(1, 0) == int(PUSHBACK_MIN_S * 1e6)
    pressure.answered(BATCH, 0.1)
    for _ in range(40):
        pressure.answered(BATCH, 0.1)
    first = pressure.refused(1, 4 * BATCH)
    for _ in range(20):
        pressure.refused(BATCH * 20, 4 * BATCH)
    later = pressure.refused(1, 4 * BATCH)
    assert first < later <= PUSHBACK_MAX_S * 1e6
    clock.at_s += 60
    assert pressure.refused(1, 0) <= first
    spread = {Pressure(clock, BATCH).refused(1, 0) for _ in range(50)}
    assert len(spread) > 40
    assert min(spread) >= PUSHBACK_MIN_S * 0.5e6
    assert max(spread) <= PUSHBACK_MIN_S * 1.5e6
