"""Rollups of groups compared with the ledger, by Postgres itself.

Guarantees: one snapshot for each month, which changes nothing; what crosses the wire are
differences, at most `FOUND_MAX` of each comparison.
Refuses to know: what is done about a difference.
"""

import json
from collections.abc import Sequence
from typing import Final

import asyncpg

from tallygate.adapters.postgres.audit import snapshot, some
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.drift import Check, Difference, spelled
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.audit import Month

_TABLES: Final = {
    "verify_groups": "group_usage",
    "verify_parts": "group_part",
    "verify_levels": "group_level",
    "verify_joined": "group_usage",
}
# These read the ledger's events.
_OF_EVENTS: Final = frozenset({"verify_groups", "verify_parts", "verify_levels"})
_LEVELS: Final = ("minute", "hour", "day")


class PostgresGroupAudit:
    """The `GroupAudit` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def unequal(self, month: Month, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what rollups of groups have otherwise than the events of a month."""
        found: list[Difference] = []
        async with snapshot(self._postgres) as connection:
            for name, table in _TABLES.items():
                # Of a month that was dropped, levels are held against each other alone.
                if month.dropped and name in _OF_EVENTS:
                    continue
                rows = await some(connection, name, month.from_us, month.to_us, tenant_id)
                found += [_difference(table, row) for row in rows]
        return found

    async def incomplete(self) -> Sequence[MeterName]:
        """Return the meters whose rollups lack events as they are made anew."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("rollup_shapes"))
        return [MeterName(row["meter"]) for row in rows if not row["whole"]]


def _difference(table: str, row: asyncpg.Record) -> Difference:
    group = ", ".join(json.loads(row["group_values"] or "[]"))
    return Difference(
        check=Check.ROLLUP,
        what=f"{table}.{row['name']}",
        tenant_id=TenantId(row["tenant_id"]),
        where=f"{row['meter']} {spelled(row['bucket_us'])} {group}".rstrip(),
        expected=int(row["wanted"]),
        found=int(row["found"]),
        detail=f"by {_LEVELS[row['level']]}",
    )
