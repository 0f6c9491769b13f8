"""Months of events in Postgres: archived, held, dropped.

Guarantees: a month is dropped by a function that runs as its owner and looks at everything again,
in one transaction with the note of it. An archive is noted whole, with what it came to.
Refuses to know: policies and files.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallygate.adapters.postgres.export_rows import rows_of
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.errors import NotFound, OperationIdReused
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.retention import MonthFacts
from tallygate.domain.window import from_datetime, to_datetime
from tallygate.ports import UnstorableBatch
from tallygate.ports.export import ExportQuery
from tallygate.ports.retention import LegalHold, MonthArchive, MonthRows, MonthUsage, NotDropped

PATIENCE_S: Final = 4 * 3_600
# For counting what is dropped, while whoever ingests waits: streams hold far more than a minute.
DROP_S: Final = 60


class PostgresRetention:
    """The `Retention` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def months(self, before_us: int) -> Sequence[MonthFacts]:
        """Return the months of events before an instant that were not dropped, by time."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            rows = await connection.fetch(query("retention_months"), before_us, timeout=PATIENCE_S)
        return [
            MonthFacts(**{name: row[name] for name in MonthFacts.__dataclass_fields__})
            for row in rows
        ]

    @asynccontextmanager
    async def rows(self, month_us: int) -> AsyncIterator[MonthRows]:
        """Lend a month's events of one moment."""
        end_us = _month_after(month_us)
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            usage = await connection.fetch(
                query("retention_usage"), month_us, end_us, timeout=PATIENCE_S
            )
            rows = await rows_of(connection, ExportQuery(from_us=month_us, to_us=end_us))
            yield MonthRows(rows, [_usage(row) for row in usage])

    async def note(self, archive: MonthArchive) -> None:
        """Note an archive that is whole."""
        columns = (
            [each.tenant_id for each in archive.usage],
            [each.meter for each in archive.usage],
            [each.events for each in archive.usage],
            [each.count for each in archive.usage],
            [each.sum for each in archive.usage],
            [each.max for each in archive.usage],
            [each.min for each in archive.usage],
        )
        async with self._postgres.connection() as connection:
            await connection.execute(
                query("retention_note_archive"),
                *(archive.archive_id, archive.month_us, archive.leaf, archive.events),
                *(archive.file.path, archive.format, archive.file.sha256, archive.actor),
                *columns,
            )

    async def drop(self, facts: MonthFacts, keep_months: int, actor: str) -> int:
        """Drop a month that its archive has; return how many events. Raises `NotDropped`."""
        try:
            async with self._postgres.connection() as connection, connection.transaction():
                await connection.execute(query("replay_patience"), str(DROP_S * 1000))
                dropped = await connection.fetchval(
                    query("retention_drop"),
                    *(facts.month_us, facts.archive_id, keep_months, actor),
                    timeout=DROP_S,
                )
                return int(dropped)
        except UnstorableBatch:
            # The function's own refusal: something has changed since it was looked at.
            raise NotDropped(field=facts.leaf) from None

    async def hold(self, hold: LegalHold) -> LegalHold:
        """Place a hold, once for its id. Raises `OperationIdReused` for another one of this id."""
        asked = (hold.hold_id, hold.tenant_id, hold.reason, hold.actor)
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("retention_hold"), *asked)
        assert row is not None
        if (row["tenant_id"], row["reason"]) != (hold.tenant_id, hold.reason):
            raise OperationIdReused(field="--id")
        return _hold(row)

    async def release(self, hold_id: str, reason: str, actor: str) -> bool:
        """End a hold; say whether it was in force. Raises `NotFound` for an unknown one."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("retention_release"), hold_id, reason, actor)
        assert row is not None
        if not row["known"]:
            raise NotFound(f"there is no hold {hold_id!r}", field="HOLD")
        return bool(row["ended"])

    async def holds(self, tenant_id: TenantId | None) -> Sequence[LegalHold]:
        """Return holds, of one tenant or all, the newest first, those that have ended as well."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("retention_holds"), tenant_id)
        return [_hold(row) for row in rows]


def _month_after(month_us: int) -> int:
    month = to_datetime(month_us)
    year, index = divmod(month.year * 12 + month.month, 12)
    return from_datetime(month.replace(year=year, month=index + 1))


def _usage(row: asyncpg.Record) -> MonthUsage:
    return MonthUsage(
        TenantId(row["tenant_id"]),
        MeterName(row["meter"]),
        *(row["events"], row["count"], int(row["sum"]), row["max"], row["min"]),
    )


def _hold(row: asyncpg.Record) -> LegalHold:
    return LegalHold(**{name: row[name] for name in LegalHold.__dataclass_fields__ if name in row})
