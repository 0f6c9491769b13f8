"""A key that comes again after Redis has forgotten it: charged, known by the ledger, taken back."""

from collections.abc import AsyncIterator

import pytest

from tallygate.domain.decision import Decided, Reused
from tests.faults.loss_world import LossWorld, loss_world

# As `loss_world` has used them: events 0 to 23, of these tenants in turn.
TENANTS = ("acme", "child", "org")


@pytest.fixture
async def world(redis_url: str, postgres_dsn: str) -> AsyncIterator[LossWorld]:
    """A Redis and a ledger in use, by which all keys are in the ledger."""
    async with loss_world(redis_url, postgres_dsn) as world:
        await world.drain()
        yield world


async def forget(world: LossWorld) -> None:
    """Have Redis' memory of operations end, as it does after `TALLYGATE_OPERATION_TTL_S`."""
    ended = [key async for key in world.client.scan_iter(match="{tg:*}:o:*", count=1_000)]
    assert ended
    for key in ended:
        assert await world.client.pexpire(key, 0)


async def corrected(world: LossWorld) -> None:
    """Bring everything to the ledger, and its corrections to the counters."""
    await world.drain()
    await world.correct.run_once()
    await world.correct.run_once()


@pytest.mark.parametrize("extra", [0, 100], ids=["same payload", "other payload"])
async def test_a_forgotten_key_costs_nothing_in_the_end(world: LossWorld, extra: int) -> None:
    """The ledger keeps what came first; what was charged again is taken back, whatever it was."""
    before = await world.counters()
    assert before == await world.recounted()
    name = TENANTS[4 % 3]
    again = await world.use(name, 4, 5)
    assert isinstance(again, Decided)
    assert again.replayed
    assert isinstance(await world.use(name, 4, 5 + 100), Reused)
    await forget(world)
    charged = await world.use(name, 4, 5 + extra)
    assert isinstance(charged, Decided)
    # The documented horizon: Redis takes it for a new one.
    assert not charged.replayed
    assert await world.counters() != before
    await corrected(world)
    assert await world.counters() == await world.recounted() == before
    # Within the memory that began with it, it is known again.
    repeat = await world.use(name, 4, 5 + extra)
    assert isinstance(repeat, Decided)
    assert repeat.replayed
    await corrected(world)
    assert await world.counters() == before
