"""The shapes of rollups, and rollups made anew from the ledger.

Guarantees: one transaction per change and per step, which waits for those that add to the same
rollups, and keeps others waiting no longer than it takes.
Refuses to know: catalogs, and how much a step is.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.adapters.postgres.group_rollups import definition_of, shape_from
from tallygate.adapters.postgres.pool import Contended, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Shape
from tallygate.domain.window import Window
from tallygate.ports.rollups import ShapeState, UsedDay

# A step that takes longer than a ledger transaction waits for a lock would have those fail.
STEP_TIMEOUT_MS: Final = 120_000
# Each waits for locks for as long as the pool lets it.
ATTEMPTS_MAX: Final = 5


class PostgresRollups:
    """The `Rollups` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def shapes(self) -> list[ShapeState]:
        """Return the shapes in effect, by meter."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("rollup_shapes"))
        return [
            ShapeState(
                MeterName(row["meter"]),
                shape_from(row["definition"]),
                row["whole"],
                row["shape_id"],
            )
            for row in rows
        ]

    async def switch(self, meter: MeterName, shape: Shape | None) -> None:
        """Put a shape into effect, None for no rollups of its own. See the port."""
        definition = definition_of(shape) if shape is not None else None
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.fetchval(query("rollup_switch"), meter, definition)

    async def days(self, number: int) -> Sequence[UsedDay]:
        """Return the days on which the meter of a shape was used, oldest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("rollup_days"), number)
        return [
            UsedDay(row["start_us"], row["events"], row["whole"], row["archived"]) for row in rows
        ]

    async def rebuild(self, number: int, hours: Window, known: Window | None) -> bool:
        """Make rollups of whole hours anew. See the port."""
        attempt = 1
        while True:
            try:
                return await self._rebuild(number, hours, known)
            except Contended:
                if attempt == ATTEMPTS_MAX:
                    raise
                attempt += 1

    async def _rebuild(self, number: int, hours: Window, known: Window | None) -> bool:
        bounds = (known.start_us, known.end_us) if known is not None else (None, None)
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("replay_patience"), str(STEP_TIMEOUT_MS))
            found = await connection.fetchval(
                query("rollup_rebuild"),
                *(number, hours.start_us, hours.end_us, *bounds),
                timeout=STEP_TIMEOUT_MS / 1000,
            )
        return int(found) >= 0

    async def purge(self, groups_max: int) -> int:
        """Delete rollups of up to so many groups of shapes that were given up; say how many."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("rollup_purge"), groups_max))
