"""The quota store on a Redis whose data went away, or went back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis.client import connect
from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import Fenced, Mode
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import epoch_of
from tests.builders import SHARDS, check, consume, decided, used, window
from tests.faults.proxy import Proxy, proxied
from tests.faults.redis_parts import SHARD, open_all, rig
from tests.servers import RedisBinary, eventually

pytestmark = pytest.mark.every_redis

STRICT = [window(limit=10)]
OPEN = [window(limit=10, on_exceed=OnExceed.ALLOW)]


async def test_an_emptied_redis_resets_no_strict_limit(redis_url: str) -> None:
    """After FLUSHALL a hard limit decides nothing until it is said to be whole; usage counts."""
    async with rig(redis_url, opens_new=False) as it:
        outcomes = await it.store.decide([consume(STRICT, 7, shard=n) for n in range(SHARDS)])
        before = {decided(each).source_id for each in outcomes}
        await it.beside.flushall()
        asked = [consume(STRICT, 1, shard=n) for n in range(SHARDS)]
        assert await it.store.decide(asked) == [Fenced()] * SHARDS
        told = await it.store.decide([replace(each, mode=Mode.RECORD) for each in asked])
        assert [used(each)[0] for each in told] == [1] * SHARDS
        assert [decided(each).first_seq for each in told] == [1] * SHARDS
        assert not before & {decided(each).source_id for each in told}
        assert (it.tally.epochs, it.tally.rollbacks) == (SHARDS, 0)
        await open_all(it.beside)
        assert [used(each)[0] for each in await it.store.decide(asked)] == [2] * SHARDS


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_redis_without_persistence_comes_back_shut(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    """What starts empty is another epoch, whose script and layout are made anew as well."""
    folder = tmp_path_factory.mktemp("redis")
    options = ("--appendonly", "no")
    server = EmbeddedRedis(folder, binary=redis_binary.path, options=options)
    async with server, rig(server.url, opens_new=False) as it:
        first = decided((await it.store.decide([consume(STRICT, 7, "op")]))[0])
        await getattr(server, way)()
        [away] = await it.store.decide([consume(STRICT, 1, "other")])
        assert isinstance(away, BackendUnavailable)
        await server.start()
        assert await it.store.decide([consume(STRICT, 7, "op")]) == [Fenced()]
        assert (it.tally.epochs, it.tally.rollbacks) == (1, 0)
        await open_all(it.beside)
        again = decided((await it.store.decide([consume(STRICT, 7, "op")]))[0])
        assert not again.replayed
        assert (again.first_seq, epoch_of(again.source_id)) == (1, await it.epoch())
        assert again.source_id != first.source_id


async def test_an_old_copy_that_was_loaded_is_a_loss(own_redis: EmbeddedRedis) -> None:
    """All keys as they were an hour ago: the next call of who knows better ends their epoch."""
    async with rig(own_redis.url, opens_new=False) as it:
        await it.store.decide([consume(STRICT, 2)])
        old = await it.stored()
        await it.store.decide([consume(STRICT, 2), consume(STRICT, 2, shard=SHARD + 1)])
        ended = await it.epoch()
        for name, value in old.items():
            assert value is not None
            await it.beside.restore(name, 0, value, replace=True)
        assert await it.store.decide([consume(STRICT, 1)]) == [Fenced()]
        assert (it.tally.epochs, it.tally.rollbacks) == (1, 1)
        assert await it.epoch() != ended
        await open_all(it.beside)
        # What the old copy had counted is of its epoch, and in nobody's way.
        assert used((await it.store.decide([consume(STRICT, 1)]))[0]) == [1]


@asynccontextmanager
async def replica_of(master: Proxy, folder: str, binary: RedisBinary) -> AsyncIterator[Redis]:
    """Start a replica that reaches its master through a proxy; return a connection to it."""
    async with EmbeddedRedis(folder, binary=binary.path) as server:
        client = connect(server.url, 2_000)
        try:
            await client.replicaof("127.0.0.1", str(master.port))

            async def linked() -> bool:
                return str((await client.info("replication"))["master_link_status"]) == "up"

            await eventually(linked, what="the replica's link")
            yield client
        finally:
            await client.aclose()


async def test_a_stale_replica_that_takes_over_decides_nothing(
    own_redis: EmbeddedRedis,
    redis_binary: RedisBinary,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What was accepted behind a cut link is lost; no number of it is given out again."""
    folder = str(tmp_path_factory.mktemp("replica"))
    async with (
        proxied(own_redis.url) as link,
        proxied(own_redis.url) as front,
        replica_of(link, folder, redis_binary) as replica,
        rig(front.url, opens_new=False) as it,
        rig(front.url, source="b", opens_new=False) as other,
    ):
        kept = decided((await it.store.decide([consume(STRICT, 4, "kept")]))[0])
        await other.store.decide([consume(STRICT, 1)])
        offset = (await it.beside.info("replication"))["master_repl_offset"]

        async def copied() -> bool:
            found = (await replica.info("replication"))["slave_repl_offset"]
            return int(found) >= int(offset)

        await eventually(copied, what="the replica's copy")
        link.refusing = True
        link.reset()
        lost = decided((await it.store.decide([consume(STRICT, 5, "lost")]))[0])
        assert (lost.first_seq, lost.source_id) == (kept.first_seq + 1, kept.source_id)
        await own_redis.kill()
        await replica.replicaof("NO", "ONE")
        front.target = str(replica.connection_pool.connection_kwargs["path"])
        front.reset()
        # Who has lost nothing cannot see it, and counts in the old epoch still.
        assert used((await other.store.decide([consume(STRICT, 1)]))[0]) == [6]
        assert await it.store.decide([consume(STRICT, 5, "lost")]) == [Fenced()]
        assert await other.store.decide([consume(STRICT, 1)]) == [Fenced()]
        assert (it.tally.rollbacks, other.tally.rollbacks) == (1, 0)
        assert (it.tally.epochs, other.tally.epochs) == (1, 1)
        await open_all(replica)
        again = decided((await it.store.decide([consume(STRICT, 5, "lost")]))[0])
        assert (again.replayed, again.first_seq, used(again)) == (False, 1, [5])
        assert again.source_id != lost.source_id


async def test_lost_scripts_numbers_and_epochs_at_once_heal_in_one_call(redis_url: str) -> None:
    """However much was lost, each operation is answered, and answered once."""
    async with rig(redis_url) as it:
        await it.store.decide([consume(OPEN, 1, shard=n) for n in range(SHARDS)])
        await it.beside.script_flush()
        await it.beside.flushall()
        outcomes = await it.store.decide([consume(OPEN, 1, shard=n) for n in range(SHARDS)])
        assert [used(each)[0] for each in outcomes] == [1] * SHARDS
        assert it.tally.epochs == SHARDS
        stands = await it.store.decide([check(OPEN, shard=n) for n in range(SHARDS)])
        assert [used(each)[0] for each in stands] == [1] * SHARDS
