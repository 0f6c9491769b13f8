"""Facts about servers whose owner is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.embedded.folder import ServerFolder, process_mark
from tests.servers import connection, eventually

OWNER = """
import asyncio, sys
from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis

async def main():
    async with EmbeddedRedis(sys.argv[1]) as redis:
        async with EmbeddedPostgres(sys.argv[2], unsafe_fast=True) as postgres:
            print(redis.pid, postgres.pid, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


IMMORTAL = """
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
signal.pause()
"""


@contextmanager
def python(code: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run code in a process of its own; give the process and its first line of output."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


async def test_servers_die_with_their_owner(tmp_path: Path) -> None:
    """Servers end when their owner is killed, and the next owner starts on their folders."""
    folders = (tmp_path / "redis", tmp_path / "postgres")
    with python(OWNER, *map(str, folders)) as (owner, line):
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 2
        assert all(process_mark(pid) is not None for pid in pids)
        owner.kill()
    await eventually(lambda: all(process_mark(pid) is None for pid in pids), what="both ended")
    async with EmbeddedRedis(folders[0]) as redis, EmbeddedPostgres(folders[1]) as postgres:
        assert redis.running
        async with connection(postgres.dsn) as opened:
            assert await opened.fetchval("select 1") == 1


async def test_orphans_are_ended(tmp_path: Path) -> None:
    """A server that outlived its owner is ended by the next one, politely or else."""
    folder = ServerFolder(tmp_path)
    with python(IMMORTAL) as (orphan, line):
        assert line == "up\n"
        folder.lock()
        folder.remember_process(orphan.pid)
        await folder.end_orphan(signal.SIGTERM, 0.05)
        folder.unlock()
        assert orphan.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "server.pid").exists()


async def test_strangers_are_left_alone(tmp_path: Path) -> None:
    """A process that merely has the number of a former server is not touched."""
    folder = ServerFolder(tmp_path)
    folder.lock()
    (tmp_path / "server.pid").write_text(f"{os.getpid()} 1\n")
    await folder.end_orphan(signal.SIGKILL, 0.05)
    folder.unlock()
    assert process_mark(os.getpid()) is not None


async def test_notes_of_garbage_are_ignored(tmp_path: Path) -> None:
    """A torn note of a former server does not keep the next one from starting."""
    (tmp_path / "server.pid").write_text("12")
    async with EmbeddedRedis(tmp_path) as redis:
        assert redis.running
