"""Facts about the fixtures and waiting that every other test rests on."""

import asyncio
from itertools import count

import pytest
from redis.asyncio import Redis

from tests.servers import RedisBinary, connection, eventually


@pytest.mark.parametrize("_", [1, 2])
async def test_each_test_gets_an_empty_redis(redis_url: str, _: int) -> None:
    """What one test leaves in Redis, scripts included, the next does not find."""
    async with Redis.from_url(redis_url, socket_timeout=10) as client:
        assert await client.dbsize() == 0
        await client.set("left", "over")


async def test_the_server_is_the_one_named(redis_url: str, redis_binary: RedisBinary) -> None:
    """A test's label tells which Redis it ran against."""
    async with Redis.from_url(redis_url, socket_timeout=10) as client:
        version = (await client.info("server"))["redis_version"]
    assert tuple(int(part) for part in version.split(".")) == redis_binary.version


@pytest.mark.parametrize("_", [1, 2])
async def test_each_test_gets_a_migrated_database(postgres_dsn: str, _: int) -> None:
    """A test's database has today's schema, and nothing of another test's."""
    async with connection(postgres_dsn) as opened:
        assert await opened.fetchval("select to_regclass('left_over')") is None
        assert await opened.fetchval(
            "select count(*) > 0 from pg_tables where schemaname not in"
            " ('pg_catalog', 'information_schema')"
        )
        await opened.execute("create table left_over ()")


async def test_an_unmigrated_database_is_empty(empty_postgres_dsn: str) -> None:
    """The database for tests of migrations has no table at all."""
    async with connection(empty_postgres_dsn) as opened:
        assert not await opened.fetchval(
            "select count(*) from pg_tables where schemaname not in"
            " ('pg_catalog', 'information_schema')"
        )


async def test_eventually_waits_for_plain_and_awaited_answers() -> None:
    """Waiting ends with the first true answer, and returns it."""
    numbers = count()

    async def asked() -> int:
        return next(numbers) // 3

    assert await eventually(lambda: next(numbers) // 3) == 1
    assert await eventually(asked) == 1


async def test_eventually_gives_up() -> None:
    """Waiting for what never comes fails, naming it."""
    with pytest.raises(AssertionError, match="the tide did not hold"):
        await eventually(lambda: False, 0.02, what="the tide")


async def test_eventually_lets_others_run() -> None:
    """While it waits, other tasks of the loop go on."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(eventually(done.is_set))
        tasks.create_task(asyncio.sleep(0)).add_done_callback(lambda _: done.set())
