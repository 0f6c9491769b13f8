"""Fifty sidecars on one Redis, and one unit that is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tallygate.adapters.clock import SystemClock
from tallygate.domain.ids import TenantId
from tallygate.flow.gather import Gather
from tests.builders import check, consume, decided, used, window
from tests.faults.redis_parts import rig

SIDECARS = 50
ROUNDS = 20


@asynccontextmanager
async def gathers(url: str) -> AsyncIterator[list[Gather]]:
    """Open so many stores, each with a connection, a queue and a source of its own."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(SIDECARS):
            it = await stack.enter_async_context(rig(url, source=f"sidecar-{number}"))
            found.append(Gather(it.store, SystemClock(), queue_max=100, batch_max=10))
        running = [asyncio.create_task(gather.run()) for gather in found]
        try:
            yield found
        finally:
            for gather in found:
                gather.close()
            await asyncio.gather(*running)


async def test_the_last_unit_is_granted_once(redis_url: str) -> None:
    """Whoever is first gets it; 49 are refused, and counter and grants agree, every time."""
    async with gathers(redis_url) as sidecars:
        for turn in range(ROUNDS):
            limits, tenant = [window(limit=1)], TenantId(f"racer-{turn}")
            answers = await asyncio.gather(
                *(gather.decide([consume(limits, 1, tenant_id=tenant)]) for gather in sidecars)
            )
            assert sum(decided(answer).allowed for [answer] in answers) == 1
            [stands] = await sidecars[turn].decide([check(limits, tenant_id=tenant)])
            assert used(stands) == [1]


async def test_one_operation_at_fifty_sidecars_is_charged_once(redis_url: str) -> None:
    """The same id everywhere at once: one charge, and everyone hears of the same."""
    async with gathers(redis_url) as sidecars:
        operation = consume([window()], 7, "same")
        answers = [
            decided(a)
            for [a] in await asyncio.gather(*(gather.decide([operation]) for gather in sidecars))
        ]
        assert all(answer.allowed for answer in answers)
        assert sum(not answer.replayed for answer in answers) == 1
        assert {answer.at_us for answer in answers} == {answers[0].at_us}
        [stands] = await sidecars[0].decide([check([window()])])
        assert used(stands) == [7]
