"""Connections to Postgres, bounded in number and time, and what its errors mean here.

Guarantees: no statement, lock or idle transaction of ours lasts beyond its bound; no more wait for
a connection than the bound says, and none longer; errors reach callers as domain errors, without
addresses, passwords or values. After a failover no connection to the former primary is lent again.
Another address, or password, counts once a server has let us in by it; nobody who has a connection
loses it by that.
Refuses to know: what is asked.

Behind PgBouncer in transaction mode, prepared statements do not hold: the cache is off when the
address says `statement_cache_size=0`. PgBouncer must be told to `ignore_startup_parameters` of the
three timeouts below, and then they are set for the role in Postgres instead.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import asyncpg

from tallygate.domain.errors import BackendUnavailable, StorageFault, TallygateError
from tallygate.ports import UnstorableBatch

LOCK_TIMEOUT_MS: Final = 5_000
IDLE_TRANSACTION_TIMEOUT_MS: Final = 30_000
CLOSE_TIMEOUT_S: Final = 10.0
# What asyncpg and the system raise. The internal error is what asyncpg makes of a session that the
# server ended while it was idle, and whose end is not read yet.
FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# Two transactions that wait for each other, or saw different pasts: the same work again succeeds.
_CONTENDED: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)
# What a value does to a whole batch: only leaving it out helps.
_UNSTORABLE: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class Contended(BackendUnavailable):
    """Other transactions were in the way; the same work again succeeds."""


class PoolExhausted(BackendUnavailable):
    """Every connection to Postgres is in use, and none came free in time."""


class ReadOnly(BackendUnavailable):
    """Postgres takes no writes: it is a standby, or was set to read only."""


class PoolObserver(Protocol):
    """What a pool tells of itself."""

    def used(self, lent: int, waiting: int) -> None:
        """So many connections are lent now, and so many callers wait for one."""
        ...


# Generic to type checkers only, so it is spelled as text.
Lent: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How connections are bounded.

    `waiting_max` is how many callers may wait for one, each for `acquire_timeout_ms` at most: far
    more than the loops and calls of a healthy process.
    """

    connections_max: int = 8
    waiting_max: int = 1_000
    acquire_timeout_ms: int = 10_000
    connect_timeout_ms: int = 5_000
    statement_timeout_ms: int = 30_000


class Postgres:
    """A pool that opens at first use, so that a process can start while Postgres is away."""

    def __init__(
        self,
        dsn: str,
        options: PoolOptions | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self._dsn, self._cache_size = _without_cache_size(dsn)
        self._options = options or PoolOptions()
        self._observer = observer
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._lent = 0
        self._waiting = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Lent"]:
        """Lend a connection. What fails meanwhile is raised as the domain error it means.

        Raises `PoolExhausted` when too many wait, or this caller has waited for too long.
        """
        try:
            pool = await self._open()
            connection = await self._acquire(pool)
            try:
                yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                # What was the primary is so no longer: who asks again must look for the new one.
                await pool.expire_connections()
                raise
            finally:
                self._lent -= 1
                self._tell()
                await pool.release(connection)
        except FAILURES as error:
            raise translate(error) from error

    async def renew(self, dsn: str) -> None:
        """Connect by another address or password from now on, and drain what was opened before.

        Raises what connecting by it raises; then all is as it was.
        """
        address, cache_size = _without_cache_size(dsn)
        kwargs = self._connecting(cache_size)
        try:
            tried = await asyncpg.connect(address, **kwargs)
            await tried.close(timeout=CLOSE_TIMEOUT_S)
        except FAILURES as error:
            raise translate(error) from error
        async with self._opening:
            self._dsn, self._cache_size = address, cache_size
            if self._pool is not None:
                self._pool.set_connect_args(address, **kwargs)
                # Each is replaced when it comes back, or is next asked for.
                await self._pool.expire_connections()

    async def close(self) -> None:
        """Close every connection, waiting briefly for those that are lent."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]") -> "Lent":
        options = self._options
        if self._waiting >= options.waiting_max:
            raise PoolExhausted("too many wait for a connection to Postgres")
        self._waiting += 1
        self._tell()
        try:
            connection = await pool.acquire(timeout=options.acquire_timeout_ms / 1000)
        except TimeoutError as error:
            if self._lent >= options.connections_max:
                raise PoolExhausted from error
            raise
        finally:
            self._waiting -= 1
            self._tell()
        self._lent += 1
        self._tell()
        return connection

    def _tell(self) -> None:
        if self._observer is not None:
            self._observer.used(self._lent, self._waiting)

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._options.connections_max,
                    **self._connecting(self._cache_size),
                )
            return self._pool

    def _connecting(self, cache_size: int) -> dict[str, Any]:
        """Return how each connection is opened."""
        options = self._options
        return {
            "timeout": options.connect_timeout_ms / 1000,
            # The server ends a statement first; this ends one whose server is gone.
            "command_timeout": options.statement_timeout_ms / 1000 + 5,
            "statement_cache_size": cache_size,
            "server_settings": {
                "application_name": "tallygate",
                "statement_timeout": str(options.statement_timeout_ms),
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "idle_in_transaction_session_timeout": str(IDLE_TRANSACTION_TIMEOUT_MS),
                "timezone": "UTC",
            },
        }


def translate(error: Exception) -> TallygateError | UnstorableBatch:
    """Return what an error of asyncpg or of the system means."""
    if isinstance(error, _CONTENDED) or _partition_moved(error):
        return Contended()
    if isinstance(error, _UNSTORABLE):
        # The class names the rule that was broken; the message could quote the value.
        return UnstorableBatch(type(error).__name__.removesuffix("Error"))
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
        return StorageFault("the schema is missing: run `tallygate migrate`")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StorageFault("Postgres refused a statement for lack of privileges")
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        return StorageFault("the schema is not the one this code expects")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return ReadOnly()
    if isinstance(error, TimeoutError):
        return BackendUnavailable("Postgres did not answer in time")
    return BackendUnavailable("Postgres cannot be reached or refused to serve")


def _partition_moved(error: Exception) -> bool:
    """Tell a row that was on its way to the default partition when its month got its own.

    A partition's bound has no name, as every check of ours has; tried again, the row finds its way.
    """
    return isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name


def _without_cache_size(dsn: str) -> tuple[str, int]:
    parts = urlsplit(dsn)
    asked = parse_qs(parts.query)
    size = int(asked.pop("statement_cache_size", ["100"])[0])
    query = urlencode(asked, doseq=True)
    return urlunsplit(parts._replace(query=query)) if parts.query else dsn, size
