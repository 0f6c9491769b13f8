"""Usage as the rollups have it.

Guarantees: pages follow each other without a gap while nothing is written between them.
Refuses to know: events.
"""

import asyncpg

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports import UsageQuery, UsageRow, UsageTotal


class PostgresUsageReader:
    """The `UsageReader` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def usage(self, asked: UsageQuery) -> list[UsageRow]:
        """Return rows by tenant, meter and bucket, after `asked.after`."""
        after = asked.after or (None, None, None)
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query(f"usage_{asked.bucket}"), *_scope(asked), *after, asked.limit
            )
        return [_row(row) for row in rows]

    async def totals(self, asked: UsageQuery) -> list[UsageTotal]:
        """Return totals by meter over all rows the query covers, whatever its limit."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("usage_totals"), *_scope(asked))
        return [
            UsageTotal(MeterName(row["meter"]), row["tenants"], row["count"], int(row["sum"]))
            for row in rows
        ]


def _scope(asked: UsageQuery) -> tuple[str | int | None, ...]:
    return asked.tenant_id, asked.meter, asked.from_us, asked.to_us


def _row(row: asyncpg.Record) -> UsageRow:
    return UsageRow(
        tenant_id=TenantId(row["tenant_id"]),
        meter=MeterName(row["meter"]),
        bucket_us=row["bucket_us"],
        count=row["count"],
        sum=int(row["sum"]),
        max=row["max"],
        min=row["min"],
    )
