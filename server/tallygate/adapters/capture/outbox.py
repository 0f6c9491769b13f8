"""Captured usage in an app's own Postgres: rows leased, and done away with under their lease.

Guarantees: rows are found by being due, never by a number, as numbers are not in the order of
commits; what a drainer says after its lease was taken over changes nothing. Time is the database's.
Refuses to know: triggers, and where usage goes.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from typing import Final

import asyncpg

from tallygate.domain.captured import CaptureBacklog, CapturedUse, Settled
from tallygate.domain.errors import BackendUnavailable, StorageFault, TallygateError
from tallygate.ports.capture import CaptureOutbox, Claimed

SCRIPTS: Final = ("tables", "functions", "triggers")
VERSION: Final = 1
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0
LOCK_TIMEOUT_MS: Final = 5_000
# A lock on a captured table waits behind whoever writes to it.
_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


@cache
def query(name: str) -> str:
    """Return the text of `sql/NAME.sql`."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_text()


def install_script(*, roles: bool) -> str:
    """Return what makes the package, and with `roles` the drainer's group role too."""
    names = (*SCRIPTS, "role") if roles else SCRIPTS
    return "\n".join(query(name) for name in names)


class PostgresCapture(CaptureOutbox):
    """The `CaptureOutbox` port, on one connection that is opened anew when it fails."""

    def __init__(self, dsn: str | Callable[[], str]) -> None:
        # Asked for each connection, so that a new password is taken where the old one is over.
        self._dsn = dsn if callable(dsn) else lambda: dsn
        self._lock = asyncio.Lock()
        self._held: asyncpg.Connection[asyncpg.Record] | None = None

    async def close(self) -> None:
        """Close the connection."""
        held, self._held = self._held, None
        if held is not None:
            await held.close(timeout=CONNECT_TIMEOUT_S)

    async def install(self, *, roles: bool = False) -> None:
        """Make the package, in one transaction. Raises `StorageFault`."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(install_script(roles=roles))

    async def version(self) -> int:
        """Return the installed version, 0 where there is none."""
        async with self._connection() as connection:
            if await connection.fetchval("select to_regclass('tallygate.capture_version')") is None:
                return 0
            found = await connection.fetchval("select max(version) from tallygate.capture_version")
            return int(found or 0)

    async def check(self) -> None:
        """Return if the package is here in the version that this code knows.

        Raises `StorageFault`.
        """
        found = await self.version()
        if found != VERSION:
            what = f"version {found} of it" if found else "nothing"
            raise StorageFault(
                f"this database has {what} of capture, and {VERSION} is needed:"
                " run `tallygate capture install`"
            )

    async def fold(self, at_most: int) -> int:
        """Have changes of levels become rows of the outbox."""
        async with self._connection() as connection:
            return int(await connection.fetchval("select tallygate.capture_fold($1)", at_most))

    async def claim(self, at_most: int, lease_ms: int) -> Claimed:
        """Lease rows that are due."""
        lease = uuid.uuid4()
        async with self._connection() as connection:
            rows = await connection.fetch(query("claim"), at_most, lease, lease_ms)
        return Claimed(str(lease), [_use(row) for row in rows])

    async def settle(self, lease: str, settled: Settled) -> int:
        """Do away with what is done."""
        token = uuid.UUID(lease)
        async with self._connection() as connection, connection.transaction():
            done = await connection.fetchval(query("accepted"), [*settled.accepted], token)
            refused = settled.refused
            if refused:
                done += await connection.fetchval(
                    query("refused"),
                    [*refused],
                    [each.reason for each in refused.values()],
                    [f"{each.field} {each.message}".strip() for each in refused.values()],
                    token,
                )
            later = settled.later_ms
            if later:
                ids, waits = [*later], [*later.values()]
                done += await connection.fetchval(query("later"), ids, waits, token)
        return int(done)

    async def backlog(self) -> CaptureBacklog:
        """Return what the outbox holds."""
        async with self._connection() as connection:
            row = await connection.fetchrow(query("backlog"))
        assert row is not None
        return CaptureBacklog(**row)

    async def captures(self) -> list[Mapping[str, object]]:
        """Return what is captured, as the view has it."""
        async with self._connection() as connection:
            rows = await connection.fetch(query("captures"))
        return [dict(row) for row in rows]

    async def rejected(self, at_most: int) -> list[Mapping[str, object]]:
        """Return what was refused, by reason and meter, most first."""
        async with self._connection() as connection:
            rows = await connection.fetch(query("rejected"), at_most)
        return [dict(row) for row in rows]

    async def retry(self, reason: str) -> int:
        """Put what was refused, all or for one reason, into the outbox again."""
        async with self._connection() as connection:
            return int(await connection.fetchval(query("retry"), reason))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        async with self._lock:
            try:
                if self._held is None or self._held.is_closed():
                    self._held = await self._opened()
                yield self._held
            except _FAILURES as error:
                raise _translated(error) from error

    async def _opened(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            self._dsn(),
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            # A pooler in front of the app's database may lend another session each time.
            statement_cache_size=0,
            server_settings={
                "application_name": "tallygate-capture",
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "timezone": "UTC",
            },
        )


def _use(row: asyncpg.Record) -> CapturedUse:
    return CapturedUse(
        captured_id=row["captured_id"],
        event_id=row["event_id"],
        tenant_id=row["tenant_id"],
        meter=row["meter"],
        amount=row["amount"],
        captured_at_us=row["captured_at_us"],
        dimensions=json.loads(row["dimensions"]),
        attempts=row["attempts"],
    )


def _translated(error: Exception) -> TallygateError:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StorageFault(f"the app's Postgres refused a statement: {error}")
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        return StorageFault(f"the app's database is not as it should be: {error}")
    if isinstance(error, asyncpg.PostgresError):
        return BackendUnavailable(f"the app's Postgres refused to serve: {type(error).__name__}")
    return BackendUnavailable("the app's Postgres cannot be reached, or did not answer in time")
