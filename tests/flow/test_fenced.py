"""Calls while a shard's counters are being rebuilt: the store answers, and does not decide."""

import pytest

from tallygate.domain.catalog import LimitKind, OnOutage
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Credit, Grant
from tallygate.domain.errors import BackendUnavailable, NotAsked
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.ports.epochs import Stage
from tallygate.testing.epochs import FakeCounterStages
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import ACME, charges, check, consume, decided, now_us, used, window
from tests.flow.outage_parts import Sidecar, recorded

OPEN = window(limit=100, on_outage=OnOutage.ALLOW)
TEN = window(limit=100, on_outage=OnOutage.LOCAL_BUDGET, local_budget=10)
SHUT = window(limit=100)
PREPAID = window("credits", 0, kind=LimitKind.BALANCE, period=None)
SHARD = 3


def shut() -> FakeQuotaStore:
    """Return a store whose counters are not rebuilt."""
    return FakeQuotaStore(now_us, stages=FakeCounterStages())


async def rebuilt(store: FakeQuotaStore) -> None:
    """Have the shard's counters be whole."""
    epoch = store.stages.state(SHARD).epoch
    assert await store.stages.advance(SHARD, epoch, Stage.OPEN)


async def granted(it: Sidecar, count: int, name: str) -> int:
    """Ask so often for one unit, handing over after each; return how many were granted."""
    found = 0
    for number in range(count):
        [answer] = await it.ask(consume([TEN], 1, f"{name}-{number}"))
        found += decided(answer).allowed
        await it.recover()
    return found


async def test_limits_decide_by_their_rules() -> None:
    """As in an outage: one refuses to say, one lets pass; nobody is refused for quota."""
    for limit, passes in ((SHUT, False), (OPEN, True)):
        it = Sidecar(shut(), [limit])
        [answer] = await it.ask(consume([limit], 1, "op"))
        if passes:
            assert decided(answer).degraded
        else:
            assert isinstance(answer, NotAsked)
        [read] = await it.ask(check([limit]))
        assert isinstance(read, NotAsked)


async def test_what_is_granted_beside_the_fence_is_counted() -> None:
    """It is handed over while the shard is shut still, once, and counts when it is open."""
    store = shut()
    it = Sidecar(store, [OPEN])
    await it.ask(consume([OPEN], 4, "op"))
    await it.recover()
    [again] = await it.ask(consume([OPEN], 4, "op"))
    assert decided(again).replayed
    await rebuilt(store)
    [read] = await it.ask(check([OPEN]))
    assert used(read) == [4]
    assert len(recorded(store)) == 1


async def test_a_budget_is_of_the_whole_time_that_is_fenced() -> None:
    """Though what was granted is handed over at once; the next loss has another budget."""
    store = shut()
    it = Sidecar(store, [TEN])
    assert await granted(it, 15, "first") == 10
    await rebuilt(store)
    [answer] = await it.ask(consume([TEN], 5, "between"))
    assert not decided(answer).degraded
    store.stages.lose(SHARD)
    assert await granted(it, 15, "second") == 10


async def test_usage_that_has_happened_is_recorded_as_ever() -> None:
    """RECORD is decided by the store, not by an outage's rules."""
    it = Sidecar(shut(), [SHUT])
    [answer] = await it.ask(consume([SHUT], 4, "op", mode=Mode.RECORD))
    assert (decided(answer).allowed, decided(answer).degraded) == (True, False)


async def test_prepaid_usage_waits_for_the_grants() -> None:
    """What has happened is kept, and handed over once the balance has what it is taken from."""
    store = shut()
    it = Sidecar(store, [PREPAID])
    [answer] = await it.ask(consume([PREPAID], 4, "op", mode=Mode.RECORD))
    assert decided(answer).degraded
    with pytest.raises(BackendUnavailable):
        await it.recover()
    assert len(it.backlog) == 1
    given = Credit((Grant(1, 0, 0, AMOUNT_MAX, 10, 10),))
    granting = Operation(Mode.GRANT, ACME, SHARD, charges=charges([PREPAID], 0), detail=given)
    await store.decide([granting])
    assert await store.stages.advance(SHARD, store.stages.state(SHARD).epoch, Stage.SEEN)
    await it.recover()
    assert (len(it.backlog), len(recorded(store))) == (0, 1)
    await rebuilt(store)
    [read] = await it.ask(check([PREPAID]))
    assert used(read) == [4]


async def test_the_breaker_does_not_open() -> None:
    """A store that answers is there: others are asked as ever."""
    it = Sidecar(shut(), [SHUT])
    for number in range(20):
        await it.ask(consume([SHUT], 1, f"op-{number}"))
    assert it.told.told["open"] == 0
    [other] = await it.ask(consume([], 1, "without limits"))
    assert not decided(other).degraded
