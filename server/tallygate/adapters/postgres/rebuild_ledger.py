"""What rebuilding asks of the ledger in Postgres.

Guarantees: while shards are closed, nobody stores anything of them, and the snapshot is taken
before anybody can again. The lead is a row with an end, not a session's lock: it holds behind
PgBouncer in transaction mode as well.
Refuses to know: counters.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from tallygate.adapters.postgres.counted_usage import PATIENCE_S, PostgresCountedUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import SourceId
from tallygate.ports.epochs import Seen
from tallygate.ports.rebuild import Closing


class PostgresRebuildLedger:
    """The `RebuildLedger` port. Closing takes two connections for a moment, then one."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lead for so long; say whether `holder` has it."""
        async with self._postgres.connection() as connection:
            return bool(await connection.fetchval(query("rebuild_lead"), holder, lease_ms))

    async def epochs(self) -> Mapping[tuple[int, str], bool]:
        """Return the shards' epochs that counters were made anew in; True for current ones."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("rebuild_epochs"))
        return {(row["shard"], row["epoch"]): row["current"] for row in rows}

    async def highest(self, epochs: Sequence[str]) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest number per source and lane, of sources numbered in these epochs."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("rebuild_highest"), list(epochs))
        return {
            (SourceId(row["source_id"]), row["source_lane"]): row["highest_seq"] for row in rows
        }

    async def empty(self) -> bool:
        """Say whether there is no usage at all."""
        async with self._postgres.connection() as connection:
            return bool(await connection.fetchval(query("rebuild_empty")))

    @asynccontextmanager
    async def close(self, epochs: Mapping[int, str]) -> AsyncIterator[Closing]:
        """Close all epochs of these shards but those named; hold a snapshot of that moment."""
        shards = sorted(epochs)
        async with AsyncExitStack() as held:
            reader = await held.enter_async_context(self._postgres.connection())
            async with self._postgres.connection() as writer, writer.transaction():
                await writer.execute(
                    query("rebuild_close"), shards, [epochs[shard] for shard in shards]
                )
                # Under the lock: the first statement of this transaction takes its snapshot.
                await held.enter_async_context(
                    reader.transaction(isolation="repeatable_read", readonly=True)
                )
                await reader.execute(query("replay_patience"), str(PATIENCE_S * 1000))
                rows = await reader.fetch(query("rebuild_seen"), shards, timeout=PATIENCE_S)
            yield Closing(PostgresCountedUsage(reader), seen_of(rows))


def seen_of(rows: Iterable[asyncpg.Record]) -> tuple[Seen, ...]:
    """Return what is seen of each lane from rows of ranges, sorted by lane and number."""
    parts: dict[tuple[SourceId, int], list[tuple[int, int]]] = {}
    for row in rows:
        lane = (SourceId(row["source_id"]), row["source_lane"])
        parts.setdefault(lane, []).append((row["first_seq"], row["last_seq"]))
    return tuple(Seen(source, lane, tuple(ranges)) for (source, lane), ranges in parts.items())
