"""A base backup of a Postgres and its write-ahead log, kept elsewhere, and restored from there.

Owns the programs that docs/operating/disaster-recovery.md names. Guarantees that what is restored
was made of the backup and the log alone. Refuses to know Tallygate's schema.
"""

import asyncio
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.embedded.postgres import bundled_programs
from tallygate.adapters.embedded.process import LAUNCHER
from tests.faults.postgres_parts import give_to, socket_folder, tool
from tests.servers import connection, eventually

SLOT: Final = "tallygate_archive"
START_S: Final = 30.0
RECOVERY_S: Final = 120.0
SETTINGS: Final = ("restore_command", "recovery_target_action", "recovery_target_name")
PARTIAL: Final = ".partial"
"""What the receiver calls the segment that it is writing: after a disaster it is the last one."""


@dataclass(slots=True)
class Archive:
    """A folder with a base backup and all log since. `confirms` has commits wait for it."""

    folder: Path
    confirms: bool = True
    _receiver: asyncio.subprocess.Process | None = None
    _owner: os.stat_result | None = None

    async def begin(self, server: EmbeddedPostgres) -> None:
        """Receive a server's log from now on, and take a base backup of it."""
        where = ("--host", socket_folder(server.dsn), "--username", "postgres")
        # The account that the server runs as, which is to own what is restored.
        self._owner = await asyncio.to_thread(os.stat, socket_folder(server.dsn))
        log = self.folder / "wal"
        log.mkdir(parents=True)
        await tool("pg_receivewal", *where, "--slot", SLOT, "--create-slot")
        receive = ("--directory", str(log), "--slot", SLOT, "--synchronous")
        # So that it ends with the harness, however that ends.
        numbers = map(str, (os.getpid(), int(signal.SIGKILL), -1, -1, 0))
        self._receiver = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCHER), *numbers),
            *(str(bundled_programs() / "pg_receivewal"), *where, *receive),
            env={**os.environ, "PGAPPNAME": SLOT},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        backup = ("--pgdata", str(self.folder / "base"), "--wal-method", "none", "--no-sync")
        await tool("pg_basebackup", *where, *backup, "--checkpoint", "fast")
        async with connection(server.dsn) as admin:
            if self.confirms:
                await admin.execute(f"alter system set synchronous_standby_names = '{SLOT}'")
                await admin.execute("select pg_reload_conf()")

            async def received() -> bool:
                state = await admin.fetchval(
                    "select sync_state from pg_stat_replication where application_name = $1", SLOT
                )
                return bool(state == "sync" if self.confirms else state)

            await eventually(received, START_S, what="the archive to receive the log")

    async def end(self) -> None:
        """Stop receiving, as when the server is gone."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None and receiver.returncode is None:
            receiver.kill()
            await receiver.wait()

    async def restore(self, folder: Path, point: str = "") -> EmbeddedPostgres:
        """Start a new server on what is archived, up to its end or to a named restore point."""
        await self.end()
        cluster = folder / "cluster"
        await asyncio.to_thread(shutil.copytree, self.folder / "base", cluster)
        lines = [
            f"restore_command = '{fetching(self.folder / 'wal')}'",
            "recovery_target_action = 'promote'",
            *([f"recovery_target_name = '{point}'"] if point else []),
        ]
        with (cluster / "postgresql.auto.conf").open("a") as settings:
            settings.writelines(f"{line}\n" for line in lines)
        (cluster / "recovery.signal").touch()
        assert self._owner is not None
        for made in (cluster, self.folder):
            give_to(self._owner, made)
        server = EmbeddedPostgres(folder, unsafe_fast=True)
        await server.start()
        try:
            async with connection(server.dsn) as admin:

                async def recovered() -> bool:
                    return not await admin.fetchval("select pg_is_in_recovery()")

                await eventually(recovered, RECOVERY_S, what="the end of recovery")
                # The next base backup would take them along, and the next restore obey them.
                for name in SETTINGS:
                    await admin.execute(f"alter system reset {name}")
        except BaseException:
            await server.stop()
            raise
        return server


def fetching(log: Path) -> str:
    """Return the restore command: a segment, or the one that was being written."""
    return f"cp {log}/%f %p || cp {log}/%f{PARTIAL} %p"
