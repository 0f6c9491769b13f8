"""What is missing is told at once and by its numbers, and what is on its way is not missing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import pytest

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.domain.completeness import Identity
from tallygate.domain.ids import SourceId, TenantId, shard_of
from tallygate.flow.completeness import CompletenessWatch, SilentCompleteness
from tallygate.ports.epochs import Seen, Stage
from tallygate.wiring.auditing import completeness_of
from tests.builders import SHARDS
from tests.faults.world import World, world
from tests.live import Live, document, live, monthly

LONE = shard_of(TenantId("lone"), SHARDS)


@dataclass
class Parts:
    """A sidecar, streams, a ledger, and what compares their numbers."""

    on: Live
    to: World
    watch: CompletenessWatch

    async def use(self, count: int) -> None:
        """Use that often, one call after another."""
        (stubs,) = self.on.sidecars
        for number in range(count):
            await stubs.consume(1, "lone", f"{id(self)}-{number}-{count}")

    async def ingest(self, entries: int) -> None:
        """Ingest so many entries."""
        await self.to.ingest("a", entries_max=entries, reads_max=1).run_once()

    async def identity(self) -> Identity:
        """Return the terms, which have to add up."""
        found = await self.watch.compare()
        others = found.persisted + found.dead_letters + found.in_stream + found.awaited
        assert found.accepted == others + found.lost + found.unaccounted
        return found

    async def delete(self, *places: int) -> None:
        """Delete entries of the stream by their places, as no process of ours does."""
        key = keys.stream(LONE)
        entries = cast(list[tuple[bytes, object]], await self.to.client.xrange(key))
        await self.to.client.xdel(key, *(entries[place][0] for place in places))

    async def epoch(self) -> str:
        """Return the shard's epoch."""
        found = await self.to.client.hget(keys.meta(LONE), "epoch")
        assert isinstance(found, bytes)
        return found.decode()


@pytest.fixture
async def parts(redis_url: str, postgres_dsn: str) -> AsyncIterator[Parts]:
    """All of it, on empty servers."""
    text = document(monthly(1_000_000), tenants={"lone": {"plan": "free"}})
    async with world(redis_url, postgres_dsn, SHARDS) as to, live(redis_url, text) as on:
        watch = completeness_of(to.postgres, to.client, SHARDS, SilentCompleteness())
        yield Parts(on, to, watch)


async def test_on_its_way_is_not_missing(parts: Parts) -> None:
    """Accepted, half ingested, ingested: each number is in one place."""
    await parts.use(20)
    found = await parts.identity()
    assert (found.accepted, found.in_stream, found.persisted) == (20, 20, 0)
    await parts.ingest(8)
    found = await parts.identity()
    assert (found.accepted, found.in_stream, found.persisted) == (20, 12, 8)
    await parts.ingest(20)
    found = await parts.identity()
    assert (found.persisted, found.in_stream, found.gaps, found.missing) == (20, 0, 0, {})


async def test_under_load_nothing_is_missing(parts: Parts) -> None:
    """While calls and ingest go on, no look finds anything that is nowhere."""
    done = asyncio.Event()

    async def load() -> None:
        await parts.use(150)
        done.set()

    async def ingesting() -> None:
        while not done.is_set():
            await parts.ingest(5)

    async with asyncio.TaskGroup() as group:
        group.create_task(load())
        group.create_task(ingesting())
        while not done.is_set():
            found = await parts.identity()
            assert (found.unaccounted, found.lost, found.awaited) == (0, 0, 0)


async def test_a_deleted_entry_is_unaccounted(parts: Parts) -> None:
    """An entry that somebody deleted before it was stored is named by its number."""
    await parts.use(5)
    await parts.delete(2)
    found = await parts.identity()
    assert (found.unaccounted, found.in_stream) == (1, 4)
    await parts.ingest(10)
    found = await parts.identity()
    assert (found.unaccounted, found.gaps, list(found.missing.values())) == (1, 1, [((3, 3),)])


async def test_a_lost_epoch_waits_for_journals_and_then_is_lost(parts: Parts) -> None:
    """What an epoch took along is awaited, then lost, and neither once it is handed in again."""
    await parts.use(5)
    before = await parts.epoch()
    await parts.delete(1, 2)
    stages = RedisCounterStages(parts.to.client, SHARDS)
    after = await stages.renew(LONE, before)
    await parts.ingest(10)
    found = await parts.identity()
    assert (found.awaited, found.lost, found.unaccounted) == (2, 0, 0)
    await stages.advance(LONE, after, Stage.OPEN)
    found = await parts.identity()
    assert (found.awaited, found.lost, found.unaccounted) == (0, 2, 0)
    await parts.use(3)
    old = SourceId(f"source-0.{before}")
    await RedisSeenNumbers(parts.to.client).hand_in([Seen(old, LONE, ((2, 3),))])
    found = await parts.identity()
    assert (found.in_stream, found.lost) == (5, 0)
    await parts.ingest(10)
    found = await parts.identity()
    assert (found.accepted, found.persisted, found.gaps, found.missing) == (8, 8, 0, {})
