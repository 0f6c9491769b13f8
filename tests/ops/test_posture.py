"""Facts about reading a Redis's posture, on every Redis there is."""

from pathlib import Path

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.posture import VERSION_MIN, read_posture
from tallygate.domain.errors import BackendUnavailable, StorageFault
from tests.servers import RedisBinary

TIMEOUT_MS = 5_000


async def posture_of(url: str) -> dict[str, float]:
    """Return the posture of the Redis at `url`."""
    async with connect(url, TIMEOUT_MS) as client:
        return await read_posture(client)


async def configure(url: str, **settings: str) -> None:
    """Change a Redis's settings."""
    async with connect(url, TIMEOUT_MS) as client:
        for name, value in settings.items():
            await client.config_set(name.replace("_", "-"), value)


async def test_the_embedded_posture(tmp_path: Path, redis_binary: RedisBinary) -> None:
    """An embedded Redis persists and does not evict; it has no bound and no replica."""
    async with EmbeddedRedis(tmp_path, binary=redis_binary.path) as server:
        posture = await posture_of(server.url)
    assert posture == {
        "persistence": 1.0,
        "persistence_healthy": 1.0,
        "noeviction": 1.0,
        "maxmemory": 0.0,
        "version": float(redis_binary.version[:2] >= VERSION_MIN),
        "primary": 1.0,
        "replicas": 0.0,
        "appendfsync": 1.0,
        "min_replicas": 0.0,
    }


async def test_each_check_follows_its_setting(own_redis: EmbeddedRedis) -> None:
    """Settings that endanger counters turn their checks, and good ones turn them back."""
    await configure(
        own_redis.url,
        maxmemory="100mb",
        maxmemory_policy="allkeys-lru",
        appendfsync="no",
        min_replicas_to_write="1",
    )
    posture = await posture_of(own_redis.url)
    assert posture["maxmemory"] == 1.0
    assert posture["noeviction"] == 0.0
    assert posture["appendfsync"] == 0.0
    assert posture["min_replicas"] == 1.0
    await configure(own_redis.url, appendonly="no", maxmemory_policy="noeviction")
    posture = await posture_of(own_redis.url)
    assert posture["persistence"] == 0.0
    assert posture["persistence_healthy"] == 0.0
    assert posture["noeviction"] == 1.0


async def test_replicas_are_seen(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A replica shows that it is none to write to."""
    folder = tmp_path_factory.mktemp("replica")
    # The master need not exist: the role is a setting.
    options = ("--replicaof", "127.0.0.1", "1")
    async with EmbeddedRedis(folder, binary=redis_binary.path, options=options) as replica:
        assert (await posture_of(replica.url))["primary"] == 0.0


async def test_config_may_be_forbidden(own_redis: EmbeddedRedis) -> None:
    """Without the right to CONFIG, all that INFO knows is still there."""
    async with connect(own_redis.url, TIMEOUT_MS) as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            *("ACL", "SETUSER", "plain", "on", ">pw", "~*", "+@all", "-config")
        )
    async with connect(f"{own_redis.url}?username=plain&password=pw", TIMEOUT_MS) as client:
        posture = await read_posture(client)
    assert posture["noeviction"] == 1.0
    assert posture["persistence"] == 1.0
    assert "appendfsync" not in posture
    assert "min_replicas" not in posture


async def test_config_may_be_renamed(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A Redis that does not know CONFIG, as managed services sell it, has a posture too."""
    folder = tmp_path_factory.mktemp("redis")
    options = ("--rename-command", "CONFIG", "")
    async with EmbeddedRedis(folder, binary=redis_binary.path, options=options) as server:
        posture = await posture_of(server.url)
    assert posture["noeviction"] == 1.0
    assert "appendfsync" not in posture


async def test_info_is_needed(own_redis: EmbeddedRedis) -> None:
    """Without INFO there is no posture, and the error is one of ours."""
    async with connect(own_redis.url, TIMEOUT_MS) as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            *("ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-info")
        )
    async with connect(f"{own_redis.url}?username=blind&password=pw", TIMEOUT_MS) as client:
        with pytest.raises(StorageFault):
            await read_posture(client)


async def test_a_missing_redis_is_unavailable(own_redis: EmbeddedRedis) -> None:
    """A Redis that is gone is unavailable, not without posture."""
    await own_redis.stop()
    with pytest.raises(BackendUnavailable):
        await posture_of(own_redis.url)
