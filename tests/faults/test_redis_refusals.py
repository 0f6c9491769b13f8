"""What Redis says when it cannot serve: one typed outcome for each, and nothing half written."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.domain.errors import BackendUnavailable, StorageFault
from tests.builders import consume, decided, rate, used, window
from tests.faults.redis_parts import SHARD, rig
from tests.servers import RedisBinary, eventually

pytestmark = pytest.mark.every_redis

LIMITS = [window(limit=1_000, warn_at_ppm=(500_000,)), rate(limit=500)]


async def said(client: Redis, *words: object) -> Any:
    """Send a command that redis-py has no typed method for; return the reply."""
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def out_of_memory(client: Redis) -> None:
    """Leave no room."""
    await client.config_set("maxmemory", "1")


async def no_replicas(client: Redis) -> None:
    """Ask for a replica that is not there."""
    await client.config_set("min-replicas-to-write", "1")


async def a_replica(client: Redis) -> None:
    """Demote the server, below a master that nobody reaches."""
    await client.replicaof("127.0.0.1", "1")


async def no_permission(client: Redis) -> None:
    """Take the right to run scripts."""
    await said(client, "ACL", "SETUSER", "default", "-evalsha")


async def no_disk(client: Redis) -> None:
    """Have a snapshot fail, as on a full disk: its file's name is a folder's."""
    folder = (await client.config_get("dir"))["dir"]
    (Path(str(folder)) / "dump.rdb").mkdir()
    await client.config_set("save", "3600 1000")
    await client.bgsave()

    async def failed() -> bool:
        return str((await client.info("persistence"))["rdb_last_bgsave_status"]) == "err"

    await eventually(failed, what="the failing snapshot")


async def foreign_stream(client: Redis) -> None:
    """Put something else in the place of the shard's stream."""
    await client.rename(keys.stream(SHARD), "aside")
    await client.set(keys.stream(SHARD), "x")


async def stream_again(client: Redis) -> None:
    """Put the stream back."""
    await client.rename("aside", keys.stream(SHARD))


def config(name: str, value: str) -> Callable[[Redis], Awaitable[object]]:
    """Return what sets a setting back."""
    return lambda client: client.config_set(name, value)


def words(*sent: str) -> Callable[[Redis], Awaitable[object]]:
    """Return what sends a command."""
    return lambda client: said(client, *sent)


REFUSALS = [
    (out_of_memory, config("maxmemory", "0"), BackendUnavailable, "out of memory"),
    (no_replicas, config("min-replicas-to-write", "0"), BackendUnavailable, "too few replicas"),
    (a_replica, words("REPLICAOF", "NO", "ONE"), BackendUnavailable, "is a replica"),
    (no_disk, config("save", ""), BackendUnavailable, "cannot persist"),
    (
        no_permission,
        words("ACL", "SETUSER", "default", "+evalsha"),
        StorageFault,
        "Redis refused a command: NOPERM",
    ),
    (foreign_stream, stream_again, StorageFault, "Redis refused a command: WRONGTYPE"),
]


@pytest.mark.parametrize(
    ("arrange", "undo", "kind", "words_"), REFUSALS, ids=[each[0].__name__ for each in REFUSALS]
)
async def test_a_refusal_is_one_typed_outcome(
    own_redis: EmbeddedRedis,
    arrange: Callable[[Redis], Awaitable[None]],
    undo: Callable[[Redis], Awaitable[object]],
    kind: type[Exception],
    words_: str,
) -> None:
    """Each operation of the call is told alike; afterwards all is as it was, and served again."""
    async with rig(own_redis.url) as it:
        await it.store.decide([consume(LIMITS, 2, "op")])
        before = await it.stored()
        await arrange(it.beside)
        outcomes = await it.store.decide([consume(LIMITS, 1, f"new-{n}") for n in range(3)])
        await undo(it.beside)
        assert {type(each) for each in outcomes} == {kind}
        assert all(words_ in str(each) for each in outcomes)
        assert await it.stored() == before
        assert (it.tally.epochs, it.tally.rollbacks) == (0, 0)
        [later] = await it.store.decide([consume(LIMITS, 1, "new-0")])
        assert (used(later)[0], decided(later).replayed) == (3, False)


async def test_a_server_busy_with_a_script_is_unavailable(own_redis: EmbeddedRedis) -> None:
    """BUSY is said at once, and nothing was done; once the script is ended, all goes on."""
    async with rig(own_redis.url) as it:
        await it.store.decide([consume(LIMITS, 2, "op")])
        await it.beside.config_set("lua-time-limit", "1")
        endless = connect(own_redis.url, 30_000)
        running = asyncio.create_task(said(endless, "EVAL", "while true do end", 0))

        async def busy() -> bool:
            try:
                await it.beside.ping()
            except RedisError as error:
                return "BUSY" in str(error) or "busy" in str(error)
            return False

        await eventually(busy, what="the endless script")
        [refused] = await it.store.decide([consume(LIMITS, 1, "new")])
        await it.beside.script_kill()
        with suppress(RedisError):
            await running
        await endless.aclose()
        assert isinstance(refused, BackendUnavailable)
        assert str(refused) == "Redis is busy with a long script"
        [later] = await it.store.decide([consume(LIMITS, 1, "new")])
        assert (used(later)[0], decided(later).replayed) == (3, False)


async def test_a_server_that_is_loading_is_unavailable(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """LOADING is said while the data is read; then counters stand and numbers go on."""
    # It looks up from its file every two megabytes.
    slowly = ("--key-load-delay", "1000", "--rdbcompression", "no")
    server = EmbeddedRedis(
        tmp_path_factory.mktemp("redis"),
        binary=redis_binary.path,
        options=("--appendonly", "no", *slowly),
    )
    async with server, rig(server.url, opens_new=False) as it:
        await it.store.decide([consume(LIMITS, 2, "op")])
        async with it.beside.pipeline(transaction=False) as pipeline:
            for number in range(2_000):
                pipeline.set(f"key-{number}", "x" * 16_384)
            await pipeline.execute()
        await it.beside.save()
        await server.stop()
        starting = asyncio.create_task(server.start())

        async def loading() -> bool:
            [refused] = await it.store.decide([consume(LIMITS, 1, "new")])
            assert isinstance(refused, BackendUnavailable)
            return str(refused) == "Redis is loading its data"

        await eventually(loading, what="the refusal of a server that loads")
        await starting
        [later] = await it.store.decide([consume(LIMITS, 1, "new")])
        assert (used(later)[0], decided(later).first_seq) == (3, 2)
        assert (it.tally.epochs, it.tally.rollbacks) == (0, 0)
