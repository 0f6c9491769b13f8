"""Which sequence numbers the ledger has.

Guarantees: reading changes nothing, and can run on a replica.
Refuses to know: streams.
"""

from collections import defaultdict
from collections.abc import Mapping

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.completeness import Lane, Ranges
from tallygate.domain.ids import SourceId


class PostgresStoredNumbers:
    """The `StoredNumbers` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def seen(self) -> Mapping[Lane, Ranges]:
        """Return the numbers that are stored, or settled otherwise, per source and shard."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("ledger_progress"))
        found: dict[Lane, list[tuple[int, int]]] = defaultdict(list)
        for row in rows:
            lane = (SourceId(row["source_id"]), row["source_lane"])
            found[lane].append((row["first_seq"], row["last_seq"]))
        return {lane: tuple(ranges) for lane, ranges in found.items()}

    async def dead_letters(self) -> int:
        """Return how many events are kept as dead letters under a number of theirs."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("completeness_letters")))
