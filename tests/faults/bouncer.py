"""A PgBouncer in transaction mode before a Postgres, where the machine has one.

Guarantees: what goes through it shares sessions with strangers from transaction to transaction.
Refuses to skip: whether there is one is decided when tests are collected.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from tallygate.adapters.embedded.process import Account, Launch
from tests.faults.postgres_parts import socket_folder
from tests.servers import eventually

# Debian has it where only administrators look.
FOUND: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
PORT: Final = 6432
STOP_S: Final = 10
# Fewer than there are clients, so that sessions go from hand to hand.
SESSIONS: Final = 2
SETTINGS: Final = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 100
ignore_startup_parameters = statement_timeout,lock_timeout,idle_in_transaction_session_timeout
logfile = {folder}/bouncer.log
pidfile = {folder}/bouncer.pid
"""


@asynccontextmanager
async def bouncing(program: str, dsn: str, database: str, folder: Path) -> AsyncIterator[str]:
    """Run one for the length of a block; give the address of a database behind it."""
    host = socket_folder(dsn)
    _prepare(folder, host)
    process = await asyncio.create_subprocess_exec(*_command(program, host, folder))
    address = f"postgresql://postgres@/{database}?host={quote(str(folder), safe='')}&port={PORT}"

    async def answers() -> bool:
        assert process.returncode is None, "PgBouncer has ended: see its log"
        try:
            probe = await asyncpg.connect(address, statement_cache_size=0, timeout=STOP_S)
        except (OSError, asyncpg.PostgresError):
            return False
        await probe.close()
        return True

    try:
        await eventually(answers, what="PgBouncer")
        yield address + "&statement_cache_size=0"
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), STOP_S)


def _command(program: str, host: str, folder: Path) -> list[str]:
    """Return how to start it: as the account that runs Postgres, as it refuses to run as root."""
    command = [program, "--quiet", str(folder / "bouncer.ini")]
    if os.geteuid() != 0:
        return command
    owner = Path(host).stat()
    account = Account(owner.st_uid, owner.st_gid, cross_folders=True)
    return Launch(command, signal.SIGTERM, account).arguments()


def _prepare(folder: Path, host: str) -> None:
    text = SETTINGS.format(host=host, port=PORT, folder=folder, sessions=SESSIONS)
    (folder / "bouncer.ini").write_text(text)
    if os.geteuid() == 0:
        owner = Path(host).stat()
        for path in (folder, folder / "bouncer.ini"):
            os.chown(path, owner.st_uid, owner.st_gid)
