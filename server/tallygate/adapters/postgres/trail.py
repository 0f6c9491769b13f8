"""The audit log in Postgres: one chain, appended to by a function that runs as its owner.

Guarantees: whoever appends holds the end of the chain until its transaction is over, so that rows
have no gap and each follows the one before; readers wait for nobody.
Refuses to know: who may ask, and what is worth a row.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallygate.adapters.postgres.pool import Contended, Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.trail import TrailEntry, TrailHead, TrailLink
from tallygate.ports.trail import TrailChain, TrailQuery

ATTEMPTS_MAX: Final = 3
# Some hundred kilobytes at a time.
PAGE: Final = 1_000
PATIENCE_S: Final = 3_600


class PostgresTrailLog:
    """The `TrailLog` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def append(self, entries: Sequence[TrailEntry]) -> int:
        """Append entries in their order, all or none; return the number of the last."""
        columns = (
            [each.actor for each in entries],
            [each.role for each in entries],
            [each.action for each in entries],
            [each.tenant_id for each in entries],
            [each.call_id for each in entries],
            [each.request for each in entries],
            [each.request_sha256 for each in entries],
            [each.outcome for each in entries],
        )
        attempt = 1
        while True:
            try:
                async with self._postgres.connection() as connection:
                    return int(await connection.fetchval(query("trail_append"), *columns))
            except Contended:
                if attempt == ATTEMPTS_MAX:
                    raise
                attempt += 1

    async def page(self, asked: TrailQuery) -> Sequence[TrailLink]:
        """Return the newest rows that a query covers."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("trail_page"),
                *(asked.tenant_id, asked.actor, asked.action),
                *(asked.from_us, asked.to_us, asked.before, asked.limit),
            )
        return [_link(row) for row in rows]

    @asynccontextmanager
    async def chain(self) -> AsyncIterator[TrailChain]:
        """Lend the whole chain as it is now, however long it is read."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            row = await connection.fetchrow(query("trail_head"))
            # Without its one row, nothing can be appended, and every row is one too many.
            head = TrailHead(row["seq"], row["hash"]) if row is not None else TrailHead()
            yield TrailChain(head, _pages(connection))


async def _pages(connection: Lent) -> AsyncIterator[Sequence[TrailLink]]:
    cursor = await connection.cursor(query("trail_chain"), timeout=PATIENCE_S)
    while rows := await cursor.fetch(PAGE, timeout=PATIENCE_S):
        yield [_link(row) for row in rows]


def _link(row: asyncpg.Record) -> TrailLink:
    entry = TrailEntry(
        actor=row["actor"],
        role=row["role"],
        action=row["action"],
        tenant_id=row["tenant_id"],
        call_id=row["call_id"],
        request=row["request"],
        request_sha256=row["request_sha256"],
        outcome=row["outcome"],
    )
    return TrailLink(row["seq"], row["at_us"], entry, row["prev_hash"], row["hash"])
