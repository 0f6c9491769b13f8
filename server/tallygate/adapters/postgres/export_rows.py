"""Rows of the ledger on their way to a file.

Guarantees: one snapshot for the count and the rows, which changes nothing and can run on a replica;
one page in memory. No two rows are alike in what they are ordered by.
Refuses to know: files.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tallygate.adapters.postgres.archived import refuse_archived
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.export import Row, Subject
from tallygate.ports.export import ExportQuery, ExportRows

# A page is a few megabytes at most.
PAGE: Final = 2_000
# The first page waits for the sort of all rows, later ones for the disk they are written to.
PATIENCE_S: Final = 4 * 3_600


class PostgresExportSource:
    """The `ExportSource` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def rows(self, asked: ExportQuery) -> AsyncIterator[ExportRows]:
        """Lend the rows of one moment, however long they are read. See the port."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("ledger_pin"))
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            yield await rows_of(connection, asked)


async def rows_of(connection: Lent, asked: ExportQuery) -> ExportRows:
    """Return the rows of a transaction's snapshot. Raises `EventsArchived`."""
    if asked.subject is Subject.EVENTS:
        await refuse_archived(connection, asked.tenant_id, asked.meter, asked.from_us, asked.to_us)
    scope = (asked.tenant_id, asked.meter, asked.from_us, asked.to_us)
    count = query(f"export_{asked.subject}_count")
    total = int(await connection.fetchval(count, *scope, timeout=PATIENCE_S))
    return ExportRows(total, _pages(connection, asked.subject, scope))


async def _pages(
    connection: Lent, subject: Subject, scope: tuple[str | int | None, ...]
) -> AsyncIterator[Sequence[Row]]:
    cursor = await connection.cursor(query(f"export_{subject}"), *scope, timeout=PATIENCE_S)
    while rows := await cursor.fetch(PAGE, timeout=PATIENCE_S):
        yield [tuple(row) for row in rows]
