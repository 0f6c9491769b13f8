"""Processes that start and stop again and again, and sockets that two of them want."""

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tallygate.api.socket_lock import AddressInUse, SocketLock
from tallygate.gen.v1 import quota_pb2_grpc
from tallygate.settings import Settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs
from tests.faults.edge_world import door
from tests.servers import eventually
from tests.sidecar import channel, charge
from tests.transports import TRANSPORT

AT_ONCE = 10
# What the first rounds load and cache for good.
WARM_ROUNDS = 4
# Above the allocator's own ups and downs, which came to 5 MB, however many the cycles.
GROWTH_MAX_KB = 16_000


@dataclass(frozen=True, slots=True)
class Footprint:
    """What this process holds on to."""

    files: int
    threads: int
    tasks: int
    objects: int
    kb: float


def footprint() -> Footprint:
    """Measure, with what nobody refers to collected."""
    gc.collect()
    me = psutil.Process()
    return Footprint(
        me.num_fds(),
        threading.active_count(),
        len(asyncio.all_tasks()),
        len(gc.get_objects()),
        me.memory_info().rss / 1e3,
    )


def names(folder: Path) -> set[str]:
    """Return what lies in a folder."""
    return {path.name for path in folder.iterdir()}


async def cycle(folder: Path, catalog: Path, redis_url: str) -> None:
    """Start a sidecar, have it decide something, and stop it in good order."""
    socket = f"unix:{folder}/serve.sock"
    settings = Settings(
        transport=TRANSPORT.value,
        # So that a slow machine has no outage and refuses nothing, which nothing here is about.
        breaker_hang_ms=10_000,
        default_deadline_ms=60_000,
        grpc_address=(socket,),
        ops_address="127.0.0.1:0",
        redis_url=redis_url,  # type: ignore[arg-type]  # parsed by the library
        catalog=catalog,
        data_dir=folder,
        counter_rebuild="none",
    )
    async with running(settings, frozenset({Role.SERVE})) as process:
        await eventually(process.ready, 30.0, what="a catalog")
        async with channel(socket) as opened:
            stub = quota_pb2_grpc.QuotaServiceStub(opened)
            assert (await stub.CheckAndConsume(charge(tenant=folder.name))).allowed


async def rounds(count: int, folders: Sequence[Path], catalog: Path, redis_url: str) -> None:
    """Start and stop so many times, several at once."""
    for _ in range(count):
        await asyncio.gather(*(cycle(folder, catalog, redis_url) for folder in folders))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "cycles", [100, pytest.param(1_000, marks=pytest.mark.faults_long)], ids=str
)
async def test_starting_and_stopping_leaves_nothing(
    tmp_path: Path, redis_url: str, cycles: int
) -> None:
    """After so many starts and stops, ten at once, files, threads, tasks and memory are as before.

    Nor does a socket, a lock or an end of a connection stay behind.
    """
    catalog = catalogs.write(tmp_path, catalogs.OPEN)
    folders = [tmp_path / f"s{n}" for n in range(AT_ONCE)]
    for folder in folders:
        folder.mkdir()
    await rounds(WARM_ROUNDS, folders, catalog, redis_url)
    before = footprint()
    await rounds(cycles // AT_ONCE, folders, catalog, redis_url)
    after = footprint()
    assert (after.threads, after.tasks) == (before.threads, before.tasks)
    assert after.files <= before.files
    # Less than one object of any kind in a cycle.
    assert after.objects - before.objects < cycles
    assert after.kb - before.kb < GROWTH_MAX_KB, f"{before} became {after}"
    assert not [name for folder in folders for name in names(folder) if "sock" in name]


async def test_a_second_server_cannot_have_the_path(tmp_path: Path) -> None:
    """It is told that another one is there, which goes on serving; afterwards the path is free."""
    address = f"unix:{tmp_path}/serve.sock"
    async with door(address) as first, channel(address) as opened:
        first.held.let.set()
        with pytest.raises(AddressInUse, match="another process listens"):
            async with door(address):
                pass
        assert (await first.stub(opened).CheckAndConsume(charge())).allowed
        assert (tmp_path / "serve.sock").stat().st_mode & 0o777 == 0o660
    assert names(tmp_path) == set()
    async with door(address) as second, channel(address) as opened:
        second.held.let.set()
        assert (await second.stub(opened).CheckAndConsume(charge())).allowed


async def test_of_many_at_once_one_has_the_path(tmp_path: Path) -> None:
    """However they come and go, no two ever hold the lock."""
    path = str(tmp_path / "serve.sock")
    inside = 0
    won = 0

    def compete() -> None:
        nonlocal inside, won
        for _ in range(200):
            lock = SocketLock(path)
            try:
                lock.take()
            except AddressInUse:
                continue
            inside += 1
            assert inside == 1
            won += 1
            inside -= 1
            lock.give_back()

    await asyncio.gather(*(asyncio.to_thread(compete) for _ in range(8)))
    assert won > 0
    assert names(tmp_path) == set()


OWNER = """
import asyncio, sys
from tests.faults.edge_world import door
async def main():
    async with door(sys.argv[1]):
        print("serving", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_what_a_killed_owner_left_is_taken_over(tmp_path: Path) -> None:
    """After kill -9 socket and lock file are still there, and the next server has the path."""
    address = f"unix:{tmp_path}/serve.sock"
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, address, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        assert await owner.stdout.readline() == b"serving\n"
        with pytest.raises(AddressInUse):
            SocketLock(f"{tmp_path}/serve.sock").take()
        # Stopped is not dead: the path is still its own.
        owner.send_signal(signal.SIGSTOP)
        with pytest.raises(AddressInUse):
            SocketLock(f"{tmp_path}/serve.sock").take()
    finally:
        owner.kill()
        await owner.wait()
    assert names(tmp_path) == {"serve.sock", "serve.sock.lock"}
    async with door(address) as next_one, channel(address) as opened:
        next_one.held.let.set()
        assert (await next_one.stub(opened).CheckAndConsume(charge())).allowed


async def test_nothing_but_a_dead_socket_is_removed(tmp_path: Path) -> None:
    """A file of another kind at the path is somebody's, and stays."""
    path = tmp_path / "serve.sock"
    path.write_text("somebody's")
    with pytest.raises(AddressInUse):
        async with door(f"unix:{path}"):
            pass
    assert path.read_text() == "somebody's"
    assert names(tmp_path) == {"serve.sock"}


async def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Of several addresses the last is taken: the others are given back."""
    addresses = [f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock"]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(door(addresses[1]))
        before = footprint()
        for _ in range(20):
            with pytest.raises(AddressInUse):
                await stack.enter_async_context(door(*addresses))
        assert footprint().files <= before.files
        await stack.enter_async_context(door(addresses[0]))
    assert names(tmp_path) == set()
