"""What one snapshot of the ledger says was used.

Guarantees: all that is read through one `CountedUsage` is of one instant, and changes nothing.
Refuses to know: limits, and what sums are for.

Sums are taken from the events themselves: rollups know neither epochs nor dimensions, and a window
of a tenant's calendar may begin on any minute.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import LimitId, TenantId
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum
from tallygate.ports.recount import CountedUsage

# A tenant may have used very much in a year: whoever recounts waits, and nobody waits for him.
PATIENCE_S: Final = 3_600

_Found = dict[tuple[int, int, tuple[str, ...]], int]


class PostgresCountedUsage:
    """The `CountedUsage` port, over a transaction that has one snapshot."""

    def __init__(self, connection: Lent) -> None:
        self._connection = connection

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        rows = await self._fetch("recount_tenants", after, count)
        return [TenantId(row["tenant_id"]) for row in rows]

    async def sums(self, asks: Sequence[Ask], but_epochs: Sequence[str] = ()) -> list[UsageSum]:
        """Return the sums that are not 0, but for events counted in `but_epochs`."""
        by_fields: dict[tuple[str, ...], list[int]] = {}
        for place, ask in enumerate(asks):
            by_fields.setdefault(ask.fields, []).append(place)
        found: _Found = {}
        for fields, places in by_fields.items():
            rows = await self._fetch(
                "recount_sums", *_columns(asks, places), list(fields), list(but_epochs)
            )
            for row in rows:
                counted = asks[row["number"]].counted
                found[_key(row)] = int(row["events"] if counted else row["amount"])
            counting = [place for place in places if asks[place].counted]
            if counting:
                rows = await self._fetch(
                    "recount_refunded", *_columns(asks, counting), list(fields), list(but_epochs)
                )
                for row in rows:
                    found[_key(row)] = found.get(_key(row), 0) - int(row["events"])
        return [UsageSum(*key, units) for key, units in found.items() if units]

    async def resets(self, tenants: Sequence[TenantId]) -> list[LastReset]:
        """Return the last reset of each counter of these tenants that was ever set back."""
        rows = await self._fetch("recount_resets", list(tenants))
        return [
            LastReset(
                TenantId(row["tenant_id"]),
                LimitId(row["limit_id"]),
                row["scope"],
                row["reset_at_us"],
            )
            for row in rows
        ]

    async def _fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query(name), *arguments, timeout=PATIENCE_S)


class PostgresUsageSnapshots:
    """The `UsageSnapshots` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[CountedUsage]:
        """Hold one snapshot of now."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            yield PostgresCountedUsage(connection)


def _columns(asks: Sequence[Ask], places: Sequence[int]) -> list[list[object]]:
    rows = [
        (
            place,
            asks[place].tenant_id,
            asks[place].meter,
            asks[place].from_us,
            asks[place].received_from_us,
            asks[place].received_until_us,
            asks[place].slot_us,
            asks[place].period_us,
        )
        for place in places
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _key(row: asyncpg.Record) -> tuple[int, int, tuple[str, ...]]:
    return row["number"], row["slot"], tuple(row["values"])
