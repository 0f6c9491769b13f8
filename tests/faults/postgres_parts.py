"""Parts of the tests of Postgres' faults: a standby, a dump, a wait for what a session does.

Guarantees: every server is one of the bundled Postgres, on a Unix socket.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.embedded.postgres import bundled_programs
from tests.servers import connection, eventually

TOOL_TIMEOUT_S: Final = 60.0
# A process of ours starts in a second, and in many on a busy machine.
WAIT_S: Final = 30.0
# An address is a query's value, so that the folders of several servers can stand side by side.
WRITABLE: Final = "target_session_attrs=read-write"


def socket_folder(dsn: str) -> str:
    """Return where the server of an address has its socket."""
    return parse_qs(urlsplit(dsn).query)["host"][0]


def either(one: EmbeddedPostgres, other: EmbeddedPostgres) -> str:
    """Return the address of whichever of two servers takes writes."""
    hosts = f"{socket_folder(one.dsn)},{socket_folder(other.dsn)}"
    return f"postgresql://postgres@/tallygate?host={hosts}&{WRITABLE}"


async def tool(name: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run one of Postgres' own programs to its end; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        str(bundled_programs() / name),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_S):
            printed, complaint = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()
    return printed


@asynccontextmanager
async def standby_of(primary: EmbeddedPostgres, folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Run a streaming replica of a server for the length of a block."""
    cluster = folder / "cluster"
    await tool(
        "pg_basebackup",
        *("--host", socket_folder(primary.dsn), "--username", "postgres"),
        *("--pgdata", str(cluster), "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
    )
    give_to_owner_of(socket_folder(primary.dsn), cluster)
    standby = EmbeddedPostgres(folder, unsafe_fast=True)
    try:
        await standby.start()
        yield standby
    finally:
        await standby.stop()


def give_to_owner_of(example: str, folder: Path) -> None:
    """Make the account that runs a server the owner of another's files, where root made them."""
    give_to(Path(example).stat(), folder)


def give_to(owner: os.stat_result, folder: Path) -> None:
    """Make whoever owns something the owner of a folder and all in it, where root made them."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def replicating(primary: EmbeddedPostgres) -> None:
    """Wait until a standby confirms what the primary commits."""
    async with connection(primary.dsn) as admin:

        async def confirmed() -> bool:
            state = await admin.fetchval("select sync_state from pg_stat_replication")
            return state in ("sync", "quorum")

        await eventually(confirmed, what="the standby's confirmation")


async def waits(
    admin: "asyncpg.Connection[asyncpg.Record]", event: str, application: str = "tallygate"
) -> int:
    """Wait until a session of ours waits for an event or kind of event; return its process."""

    async def found() -> int | None:
        # Within a transaction, what sessions do is looked up once and then remembered.
        await admin.execute("select pg_stat_clear_snapshot()")
        pid: int | None = await admin.fetchval(
            "select pid from pg_stat_activity where application_name = $1"
            " and $2 in (wait_event, wait_event_type)",
            application,
            event,
        )
        return pid

    pid = await eventually(found, WAIT_S, what=f"a session that waits for {event}")
    assert pid is not None
    return pid
