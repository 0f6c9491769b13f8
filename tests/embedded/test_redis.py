"""Facts about the embedded Redis, on every redis-server there is."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import (
    BinaryMissing,
    EmbeddedRedis,
    EmbeddedServerError,
    FolderInUse,
    FolderUnusable,
    StartFailed,
)
from tests.servers import RedisBinary, eventually, redis_binaries


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    """Connect for the length of a block."""
    client = Redis.from_url(url, socket_timeout=10, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def config(client: Redis, name: str) -> str:
    """Return one setting of the server."""
    return str((await client.config_get(name))[name])


async def test_it_keeps_what_counts(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """It appends to a file each second, evicts nothing, and has no TCP port."""
    async with (
        EmbeddedRedis(tmp_path, binary=redis_binary.path) as server,
        client_of(server.url) as client,
    ):
        assert await config(client, "appendonly") == "yes"
        assert await config(client, "appendfsync") == "everysec"
        assert await config(client, "maxmemory-policy") == "noeviction"
        assert await config(client, "port") == "0"
    with pytest.raises(EmbeddedServerError):
        _ = server.tcp_url


async def test_contents_survive_a_restart(own_redis: EmbeddedRedis) -> None:
    """What was written before a clean restart is there after it, at the same address."""
    url = own_redis.url
    async with client_of(url) as client:
        await client.set("kept", "7")
    await own_redis.restart()
    assert own_redis.url == url
    async with client_of(url) as client:
        assert await client.get("kept") == "7"


async def test_contents_survive_a_kill(own_redis: EmbeddedRedis) -> None:
    """What the kernel was given before a kill is there after the next start."""
    async with client_of(own_redis.url) as client:
        await client.set("kept", "7")
    await own_redis.kill()
    assert not own_redis.running
    await own_redis.start()
    async with client_of(own_redis.url) as client:
        assert await client.get("kept") == "7"


async def test_one_owner_per_folder(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """A second start on a folder is refused, naming the folder and its owner; a later one works."""
    async with EmbeddedRedis(tmp_path, binary=redis_binary.path) as first:
        with pytest.raises(FolderInUse) as caught:
            await EmbeddedRedis(tmp_path, binary=redis_binary.path).start()
        assert str(tmp_path) in str(caught.value)
        assert str(os.getpid()) in str(caught.value)
        assert first.running
    async with EmbeddedRedis(tmp_path, binary=redis_binary.path) as second:
        assert second.running


async def test_long_folders_work(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """A folder whose path is longer than a socket's may be works, and restarts."""
    folder = tmp_path / ("long-" * 30)
    async with EmbeddedRedis(folder, binary=redis_binary.path) as server:
        async with client_of(server.url) as client:
            assert await client.ping()
        await server.restart()
        assert server.running


async def test_a_tcp_port_can_be_asked_for(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """Port 0 gives a free loopback port, which a restart keeps."""
    async with EmbeddedRedis(tmp_path, binary=redis_binary.path, tcp_port=0) as server:
        url = server.tcp_url
        await server.restart()
        assert server.tcp_url == url
        async with client_of(url) as client:
            assert await client.ping()


async def test_cluster_mode(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """Further options reach the server, such as those of a cluster."""
    options = ("--cluster-enabled", "yes")
    server = EmbeddedRedis(tmp_path, binary=redis_binary.path, tcp_port=0, options=options)
    async with server, client_of(server.url) as client:
        assert (await client.info("cluster"))["cluster_enabled"] == 1


async def test_a_failed_start_says_why(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """A start that fails raises with the server's last words, and gives the folder back."""
    options = ("--no-such-option", "yes")
    with pytest.raises(StartFailed) as caught:
        await EmbeddedRedis(tmp_path, binary=redis_binary.path, options=options).start()
    assert "no-such-option" in str(caught.value)
    async with EmbeddedRedis(tmp_path, binary=redis_binary.path) as server:
        assert server.running


async def test_a_start_has_a_timeout(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """A server that is never ready is ended when its time is up."""
    server = EmbeddedRedis(
        tmp_path,
        binary=redis_binary.path,
        # Whoever asks is told that a password is missing, for ever.
        options=("--requirepass", "secret"),
        start_timeout_s=0.2,
    )
    with pytest.raises(StartFailed, match="not ready"):
        await server.start()
    assert not server.running


async def test_missing_binaries_are_named(tmp_path: Path) -> None:
    """A binary that is not there, or is no Redis, is refused by name."""
    with pytest.raises(BinaryMissing):
        await EmbeddedRedis(tmp_path, binary=tmp_path / "none").start()
    with pytest.raises(BinaryMissing, match="no redis-server"):
        await EmbeddedRedis(tmp_path, binary="/bin/echo").start()


async def test_older_binaries_refuse_newer_files(tmp_path: Path) -> None:
    """Redis 6 would ignore what Redis 7 wrote, and is refused instead."""
    (tmp_path / "appendonlydir").mkdir()
    oldest = min(redis_binaries(), key=lambda each: each.version)
    assert oldest.version < (7,)
    with pytest.raises(FolderUnusable, match="Redis 7"):
        await EmbeddedRedis(tmp_path, binary=oldest.path).start()


async def test_folders_that_cannot_be_are_named(tmp_path: Path) -> None:
    """A folder whose place is taken by a file is refused by its path."""
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(FolderUnusable, match=str(place)):
        await EmbeddedRedis(place).start()


async def test_stop_is_clean_and_repeatable(own_redis: EmbeddedRedis) -> None:
    """A stop ends the process, and a second one does nothing."""
    pid = own_redis.pid
    await own_redis.stop()
    await own_redis.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_stop_ends_a_server_that_hangs(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ignores the request to stop is killed when its time is up."""
    monkeypatch.setattr("tallygate.adapters.embedded.redis.STOP_TIMEOUT_S", 0.05)
    pid = own_redis.pid
    os.kill(pid, signal.SIGSTOP)
    await own_redis.stop()
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the process is gone")
