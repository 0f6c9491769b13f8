"""Our usage in order, to be held beside another system's.

Guarantees: one snapshot for a whole reading, through a cursor; nothing is changed, so that a
replica and a role that may only read will do.
Refuses to know: what it is compared with.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final

import asyncpg

from tallygate.adapters.postgres.archived import refuse_archived
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.compare import Entry
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.compare import OurUsage

PAGE: Final = 5_000
# Events are sorted by id first, on disk where there are many.
PATIENCE_S: Final = 4 * 3_600
EVENTS: Final = "compare_events"


class PostgresComparedUsage:
    """The `ComparedUsage` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def buckets(self, asked: OurUsage, by: str, figure: str) -> AsyncIterator[Entry]:
        """Iterate over buckets of a minute, hour or day, by tenant, meter and time."""
        async for row in self._rows(f"compare_{by}", asked):
            units = Decimal(row["sum"] if figure == "sum" else row["count"])
            yield Entry(
                TenantId(row["tenant_id"]), MeterName(row["meter"]), row["bucket_us"], units
            )

    async def events(self, asked: OurUsage) -> AsyncIterator[Entry]:
        """Iterate over events, by tenant and event id; each one's bucket is its own time."""
        async for row in self._rows(EVENTS, asked):
            yield Entry(
                TenantId(row["tenant_id"]),
                MeterName(row["meter"]),
                row["event_time_us"],
                Decimal(row["amount"]),
                row["event_id"],
            )

    async def _rows(self, name: str, asked: OurUsage) -> AsyncIterator[asyncpg.Record]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("ledger_pin"))
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            bounds = (asked.from_us, asked.to_us, asked.tenant_id, asked.meter)
            if name == EVENTS:
                await refuse_archived(
                    connection,
                    *(asked.tenant_id, asked.meter, asked.from_us, asked.to_us),
                    field="--from",
                )
            cursor = await connection.cursor(query(name), *bounds, timeout=PATIENCE_S)
            while rows := await cursor.fetch(PAGE, timeout=PATIENCE_S):
                for row in rows:
                    yield row
