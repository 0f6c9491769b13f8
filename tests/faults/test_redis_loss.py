"""Redis loses data: emptied, an old copy, a copy of an older epoch, and what comes late of it."""

from collections.abc import AsyncIterator

import pytest

from tallygate.domain.decision import Decided, Fenced, Mode
from tallygate.flow.rebuild import BEHIND, PAST
from tests.faults.loss_world import LossWorld, loss_world

pytestmark = pytest.mark.every_redis


@pytest.fixture
async def world(redis_url: str, postgres_dsn: str) -> AsyncIterator[LossWorld]:
    """A Redis and a ledger in use."""
    async with loss_world(redis_url, postgres_dsn) as world:
        yield world


async def test_an_emptied_redis_is_rebuilt(world: LossWorld) -> None:
    """Hard limits wait, records count, and in the end counters are those of the ledger."""
    before = await world.counters()
    assert before == await world.recounted()
    await world.client.flushall()
    assert isinstance(await world.use("acme", 30, mode=Mode.CONSUME), Fenced)
    assert isinstance(await world.use("acme", 31, 9), Decided)
    await world.rebuilt()
    await world.drain()
    after = await world.counters()
    assert after == await world.recounted()
    assert after["acme", "monthly/month"] == before["acme", "monthly/month"] + 9
    left = 1_000 - after["acme", "monthly/month"]
    refused = await world.use("acme", 32, left + 1, Mode.CONSUME)
    assert isinstance(refused, Decided)
    assert not refused.allowed
    assert await world.use("acme", 33, left, Mode.CONSUME) != refused


async def test_a_copy_that_lost_its_last_writes_is_given_up(world: LossWorld) -> None:
    """The ledger has numbers that the copy has not given out: they must not be given again."""
    copy = await world.copy()
    for number in range(40, 46):
        await world.use("acme", number, 7)
    await world.drain()
    await world.put_back(copy)
    # One that has just started knows nothing of those numbers.
    world.store = world.sidecar("another")
    await world.rebuilt()
    await world.rebuild.run_once()
    await world.rebuilt()
    assert set(world.told.renewals) == {BEHIND}
    assert await world.counters() == await world.recounted()


async def test_a_sidecar_that_knows_better_gives_the_copy_up(world: LossWorld) -> None:
    """It has been given numbers that the copy does not know, and decides nothing by it."""
    await world.use("acme", 40, 7)
    await world.drain()
    copy = await world.copy()
    await world.use("acme", 41, 7)
    await world.drain()
    await world.put_back(copy)
    assert isinstance(await world.use("acme", 42, 1, Mode.CONSUME), Fenced)
    await world.rebuilt()
    assert await world.counters() == await world.recounted()


async def test_a_copy_of_a_closed_epoch_is_given_up(world: LossWorld) -> None:
    """It was whole when it was taken; what was counted since in another epoch is not in it."""
    copy = await world.copy()
    await world.client.flushall()
    await world.rebuilt()
    await world.use("acme", 40, 7)
    await world.drain()
    await world.put_back(copy)
    world.store = world.sidecar("another")
    await world.rebuild.run_once()
    await world.rebuilt()
    assert set(world.told.renewals) == {PAST}
    assert await world.counters() == await world.recounted()


async def test_what_an_ingester_still_held_is_added(world: LossWorld) -> None:
    """Entries that were read before Redis was emptied come to the ledger after the rebuilding."""
    for number in range(50, 54):
        await world.use("child", number, 5)
    held = await world.stream.read(100, 1)
    await world.client.flushall()
    await world.rebuilt()
    world.ingest._held.add(held)
    await world.drain()
    assert await world.counters() != await world.recounted()
    await world.correct.run_once()
    await world.correct.run_once()
    assert world.told.outcomes == ["applied"] * 4
    assert await world.counters() == await world.recounted()


async def test_what_was_counted_twice_is_taken_back(world: LossWorld) -> None:
    """Redis has forgotten the operations, so that retries count; the ledger knows their events."""
    async for key in world.client.scan_iter(match="{tg:*}:o:*", count=1_000):
        await world.client.delete(key)
    for number in range(24):
        name = ("acme", "child", "org")[number % 3]
        assert isinstance(await world.use(name, number, 1 + number), Decided)
    await world.drain()
    assert await world.counters() != await world.recounted()
    await world.correct.run_once()
    await world.correct.run_once()
    assert world.told.outcomes == ["applied"] * 24
    assert await world.counters() == await world.recounted()
