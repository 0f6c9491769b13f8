"""Migrations: numbered SQL files, applied in order, each once, by whoever comes first.

Guarantees: a migration is applied whole or not at all; an interrupted run goes on where it was; two
runs at once wait for each other; a changed file, or a database newer than this code, is refused.
Refuses to know: what migrations do.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

import asyncpg

from tallygate.adapters.postgres.pool import FAILURES, translate
from tallygate.domain.errors import TallygateError

# Any number, so long as every version of this code uses the same.
LOCK_ID: Final = 7_233_190_411
LOCK_TIMEOUT_MS: Final = 5_000
STATEMENT_TIMEOUT_MS: Final = 600_000
CONNECT_TIMEOUT_S: Final = 10.0
# The first with multiranges, in which progress is kept.
SERVER_MAJOR_MIN: Final = 14

_PREPARE: Final = """
create schema if not exists tallygate;
create table if not exists tallygate.schema_migration (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
"""
_READ: Final = "select name, checksum from tallygate.schema_migration order by name"
_MARK: Final = "insert into tallygate.schema_migration (name, checksum) values ($1, $2)"


class MigrationRefused(TallygateError):
    """The database's schema and this code's migrations do not fit together."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return what tells whether the file has changed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return this code's migrations in order."""
    folder = resources.files(__package__).joinpath("migrations")
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (Migration(file.name.removesuffix(".sql"), file.read_text()) for file in files),
        key=lambda migration: migration.name,
    )


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing; return the names of what was applied.

    Raises `MigrationRefused`, and `BackendUnavailable` when Postgres cannot be reached.
    """
    async with _connected(dsn) as connection:
        return await _migrate(connection)


async def pending(dsn: str) -> list[str]:
    """Return the names of the migrations that are not applied yet; the errors are `migrate`'s."""
    async with _connected(dsn) as connection:
        applied = await _applied(connection)
    return [migration.name for migration in _missing(applied)]


async def apply_roles(dsn: str) -> None:
    """Create the group roles of `roles.sql` and grant their rights; the errors are `migrate`'s.

    Needs the right to create roles, which `migrate` does not: so it is a step of its own.
    """
    text = resources.files(__package__).joinpath("roles.sql").read_text()
    async with _connected(dsn) as connection, connection.transaction():
        await connection.execute(text)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": "tallygate-migrate",
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                # A run that was killed must not hold its locks until its statement ends.
                "client_connection_check_interval": "1s",
            },
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)
    except FAILURES as error:
        raise translate(error) from error


async def _migrate(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    major = connection.get_server_version().major
    if major < SERVER_MAJOR_MIN:
        raise MigrationRefused(
            f"Postgres {major} is too old: {SERVER_MAJOR_MIN} or later is needed"
        )
    await connection.execute("select pg_advisory_lock($1)", LOCK_ID)
    try:
        await connection.execute(_PREPARE)
        await connection.execute(f"set lock_timeout = {LOCK_TIMEOUT_MS}")
        missing = _missing(await _applied(connection))
        for migration in missing:
            async with connection.transaction():
                await connection.execute(migration.text)
                await connection.execute(_MARK, migration.name, migration.checksum)
        return [migration.name for migration in missing]
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK_ID)


async def _applied(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, str]:
    known = await connection.fetchval("select to_regclass('tallygate.schema_migration')")
    if known is None:
        return {}
    return {row["name"]: row["checksum"] for row in await connection.fetch(_READ)}


def _missing(applied: dict[str, str]) -> list[Migration]:
    own = migrations()
    unknown = sorted(applied.keys() - {migration.name for migration in own})
    if unknown:
        raise MigrationRefused(f"the database is newer than this code: it has {unknown[-1]}")
    for migration in own:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationRefused(f"migration {migration.name} was changed after it was applied")
    return [migration for migration in own if migration.name not in applied]
