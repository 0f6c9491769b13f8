"""Callers that give up at random moments: nothing is charged twice, and no reply goes astray."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, DeadlineTooShort, TallygateError
from tallygate.domain.ids import TenantId
from tallygate.flow.gather import Gather
from tallygate.ports import OperationKey, QuotaStore, Recorded, ReservationKey
from tests.builders import SHARDS, check, consume, decided, used, window
from tests.faults.redis_parts import rig

CALLS = 4_000
TENANTS = 7
# So many at once; each is given up at some moment of the time that they take together.
WAVE = 100


@asynccontextmanager
async def gathering(store: QuotaStore) -> AsyncIterator[Gather]:
    """Run a gather in front of the store."""
    gather = Gather(store, SystemClock(), queue_max=10 * CALLS, batch_max=32)
    running = asyncio.create_task(gather.run())
    try:
        yield gather
    finally:
        gather.close()
        await running


def operation_of(number: int) -> Operation:
    """Return a call of one of the tenants; its limit tells whose reply a reply is."""
    tenant = number % TENANTS
    limits = [window(limit=1_000_000 + tenant)]
    return consume(
        limits, 1, f"op-{number}", tenant_id=TenantId(f"t{tenant}"), shard=number % TENANTS % SHARDS
    )


async def charged(gather: Gather) -> int:
    """Return what all tenants have used."""
    answers = await gather.decide(
        [
            check([window(limit=1)], tenant_id=TenantId(f"t{tenant}"), shard=tenant % SHARDS)
            for tenant in range(TENANTS)
        ]
    )
    return sum(used(answer)[0] for answer in answers)


async def ask(gather: Gather, number: int) -> bool:
    """Ask once; say whether the answer was a repeat. The reply must be of this tenant."""
    [answer] = await gather.decide([operation_of(number)])
    decision = decided(answer)
    assert decision.allowed
    assert [reading.limit for reading in decision.readings] == [1_000_000 + number % TENANTS]
    return decision.replayed


async def wave_s(gather: Gather) -> float:
    """Return how long a wave takes on this machine now, so that some of it is given up."""
    began = time.monotonic()
    await asyncio.gather(*(ask(gather, -n - 1) for n in range(WAVE)))
    return time.monotonic() - began


async def test_cancelled_calls_are_charged_at_most_once(redis_url: str) -> None:
    """What was charged is what was answered and what retries find charged already."""
    dice = random.Random(20)
    loop = asyncio.get_running_loop()
    async with rig(redis_url) as it, gathering(it.store) as gather:
        opened = (await it.beside.info("stats"))["total_connections_received"]
        found: list[bool | BaseException] = []
        give_up_s = await wave_s(gather)
        for wave in range(0, CALLS, WAVE):
            tasks = [asyncio.create_task(ask(gather, wave + n)) for n in range(WAVE)]
            for task in tasks:
                loop.call_later(dice.random() * give_up_s, task.cancel)
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            found += ended
            # The machine may be slower by now, or faster, and some must be answered, and some not.
            answers = ended.count(False)
            if answers < WAVE // 10:
                give_up_s *= 2
            elif answers > WAVE - WAVE // 10:
                give_up_s /= 2
        lost = [n for n, each in enumerate(found) if isinstance(each, asyncio.CancelledError)]
        answered = [n for n, each in enumerate(found) if each is False]
        assert len(lost) + len(answered) == CALLS
        # Both must happen, or nothing was shown.
        assert min(len(lost), len(answered)) > CALLS // 50

        before = await charged(gather)
        repeats = [await ask(gather, number) for number in lost]
        assert before == WAVE + len(answered) + sum(repeats)
        assert await charged(gather) == WAVE + CALLS
        assert all([await ask(gather, number) for number in answered[:50]])
        # A cancelled caller costs no connection: the pipeline it rode on went on.
        assert (await it.beside.info("stats"))["total_connections_received"] == opened


async def test_what_nobody_waits_for_is_not_sent(redis_url: str) -> None:
    """A call that is given up while it queues is never charged."""
    async with rig(redis_url) as it:
        gather = Gather(it.store, SystemClock(), queue_max=10, batch_max=10)
        tasks = [asyncio.create_task(ask(gather, number)) for number in range(3)]
        while gather.depth < len(tasks):
            await asyncio.sleep(0)
        tasks[1].cancel()
        running = asyncio.create_task(gather.run())
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[0], found[2]] == [False, False]
        assert await charged(gather) == 2
        gather.close()
        await running


async def test_what_is_out_of_time_is_not_charged(redis_url: str) -> None:
    """An operation whose deadline is hopeless is told so, and its neighbours are served."""
    async with rig(redis_url) as it, gathering(it.store) as gather:
        soon = asyncio.get_running_loop().time()
        late = consume([window()], 1, "late", expires_at=soon)
        answers = await gather.decide([consume([window()]), late, consume([window()])])
        assert isinstance(answers[1], DeadlineTooShort)
        assert [used(answers[0]), used(answers[2])] == [[1], [2]]
        [stands] = await gather.decide([check([window()])])
        assert used(stands) == [2]


class Failing:
    """A store that breaks its promise once, and keeps it afterwards."""

    def __init__(self) -> None:
        self.calls = 0

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Raise at first, then answer each with an error of its own."""
        self.calls += 1
        if self.calls == 1:
            raise ValueError("a fault in the store")
        return [BackendUnavailable() for _ in operations]

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Nobody asks."""
        raise BackendUnavailable

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Nobody asks."""
        raise BackendUnavailable


@pytest.mark.timeout(10)
async def test_a_store_that_raises_fails_its_callers_and_no_others() -> None:
    """Whoever rode on the broken pipeline is told, and the next ones are served."""
    gather = Gather(Failing(), SystemClock(), queue_max=10, batch_max=10)
    running = asyncio.create_task(gather.run())
    async with asyncio.timeout(5):
        found = await asyncio.gather(gather.decide([check([window()])]), return_exceptions=True)
        assert isinstance(found[0], list | Exception)
        [later] = await gather.decide([check([window()])])
    assert isinstance(later, BackendUnavailable)
    gather.close()
    await running
