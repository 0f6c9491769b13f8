"""Real servers for the tests, and waiting without sleeping.

Owns which Redis binaries the suite runs against, databases made from a migrated template, and
`eventually`. Guarantees that a test gets an empty Redis and a Postgres database of its own.
Refuses to skip: what is to be tested is decided when tests are collected.
"""

import asyncio
import inspect
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar, overload

import asyncpg
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.embedded.redis import binary_version, bundled_binary

T = TypeVar("T")

POLL_S = 0.005
"""Between two looks of `eventually`: short beside any wait worth testing."""

COMMAND_TIMEOUT_S = 10.0

# The kernel has each write before it is answered, so that a server that is killed keeps it. Where
# it is synced each second, a disk that other tests keep busy has Redis answer before it writes, or
# holds it up, for seconds.
UNSYNCED = ("--appendfsync", "no", "--no-appendfsync-on-rewrite", "yes")

# Where there is room, servers that a whole run shares live in memory: most of what a database of a
# test's own costs is files made and removed, and nothing of them outlives the run.
MEMORY = Path("/dev/shm")
MEMORY_PREFIX = "tallygate-tests-"
MEMORY_FREE_MIN_BYTES = 2 << 30

CLUSTER_OPTIONS = ("--cluster-enabled", "yes")
CLUSTER_SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class RedisBinary:
    """A redis-server that the suite runs against."""

    label: str
    path: Path
    version: tuple[int, ...]


def redis_binaries() -> list[RedisBinary]:
    """Return the bundled redis-server and, when there is one, the system's."""
    bundled = bundled_binary()
    found = [RedisBinary(_label("embedded", bundled), bundled, binary_version(bundled))]
    # The environment's own folder holds another copy of the bundled one.
    own = Path(sys.prefix).resolve()
    for folder in map(Path, os.get_exec_path()):
        system = folder / "redis-server"
        if system.is_file() and own not in system.absolute().parents:
            if binary_version(system) != found[0].version:
                found.append(RedisBinary(_label("system", system), system, binary_version(system)))
            break
    return found


def _label(origin: str, path: Path) -> str:
    return f"redis-{'.'.join(map(str, binary_version(path)))}-{origin}"


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine for a synchronous fixture, on a loop that nobody else sees."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def flush(url: str) -> None:
    """Empty a Redis, and forget its scripts."""
    client = Redis.from_url(url, socket_timeout=COMMAND_TIMEOUT_S)
    try:
        await client.flushall()
        await client.script_flush()
    finally:
        await client.aclose()


async def claim_slots(server: EmbeddedRedis) -> None:
    """Give a server in cluster mode every slot, and wait until it serves them."""
    client = Redis.from_url(server.url, socket_timeout=COMMAND_TIMEOUT_S)
    try:
        slots = range(CLUSTER_SLOTS)
        await client.execute_command("CLUSTER", "ADDSLOTS", *slots)  # type: ignore[no-untyped-call]

        async def serves() -> bool:
            state = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
            return "cluster_state:ok" in str(state)

        await eventually(serves, what="the cluster's state")
    finally:
        await client.aclose()


@asynccontextmanager
async def connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect to a database for the length of a block."""
    opened = await asyncpg.connect(
        dsn, timeout=COMMAND_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
    )
    try:
        yield opened
    finally:
        await opened.close()


class Databases:
    """Makes and drops the databases of single tests on one server."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._numbers = count(1)

    async def create(self, template: str = "template0") -> str:
        """Create a database and return its name."""
        name = f"test_{next(self._numbers)}"
        async with connection(self._server.dsn) as admin:
            await admin.execute(
                f'create database "{name}" template "{template}" strategy file_copy'
            )
        return name

    async def drop(self, name: str) -> None:
        """Drop a database, cutting whoever still uses it."""
        async with connection(self._server.dsn) as admin:
            await admin.execute(f'drop database if exists "{name}" with (force)')

    def dsn(self, name: str) -> str:
        """Return the address of a database by its name."""
        return self._server.dsn_of(name)


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]], timeout_s: float = ..., *, what: str = ...
) -> T: ...
@overload
async def eventually(
    predicate: Callable[[], T], timeout_s: float = ..., *, what: str = ...
) -> T: ...
async def eventually(
    predicate: Callable[[], T | Awaitable[T]],
    timeout_s: float = 10.0,
    *,
    what: str = "",
) -> T:
    """Return the first truthy answer of `predicate`, plain or awaited.

    Raises AssertionError after `timeout_s`, naming `what` was awaited and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            awaited = what or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"{awaited} did not hold in {timeout_s:g} s; last was {value!r}")
        await asyncio.sleep(POLL_S)


@contextmanager
def quick_folder(otherwise: Path) -> Iterator[Path]:
    """Lend a folder in memory where there is room, else the one given; it goes with the block."""
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        free = 0
    if free < MEMORY_FREE_MIN_BYTES:
        yield otherwise
        return
    # A run that was killed has left its own, which would stay in memory.
    for left in MEMORY.glob(f"{MEMORY_PREFIX}*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"{MEMORY_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY) as folder:
        yield Path(folder)


def shared_redis(binary: RedisBinary, folder: Path) -> Iterator[EmbeddedRedis]:
    """Run a server for as long as a fixture of a whole run lasts."""
    server = EmbeddedRedis(folder, binary=binary.path, options=UNSYNCED)
    run(server.start())
    yield server
    run(server.stop())
