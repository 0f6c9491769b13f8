"""Events are read while a month of them is being dropped: all of it, or a refusal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.export_rows import PostgresExportSource
from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import MeterName
from tallygate.domain.invoice import Measured, Selection
from tallygate.domain.window import DAY_US, Window, from_datetime
from tallygate.flow.retention import plan
from tallygate.ports.billing import UsageAsked
from tallygate.ports.export import EventsArchived, ExportQuery
from tests.builders import ACME
from tests.flow.retention_parts import Parts, parts
from tests.servers import connection, eventually

__all__ = ["parts"]

LATER_US = from_datetime(datetime(2025, 1, 1, tzinfo=UTC))
LEVELS = Selection(MeterName("requests"), Aggregation.TIME_WEIGHTED)
LATER = UsageAsked(0, LEVELS, Window(LATER_US, LATER_US + DAY_US))
WAITING = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'
"""


@asynccontextmanager
async def dropping(parts: Parts) -> AsyncIterator[None]:
    """Have a month be on its way out until somebody waits for it, and then be gone."""
    await parts.archived()
    facts = next(each.facts for each in await plan(parts.parts) if each.facts.leaf)
    async with connection(parts.dsn) as admin, admin.transaction():
        await admin.fetchval(
            "select tallygate.drop_month(tallygate.instant($1), $2, 14, 'ada')",
            *(facts.month_us, facts.archive_id),
        )
        yield
        await eventually(lambda: admin.fetchval(WAITING), what="somebody who waits")


async def test_an_export_sees_that_a_month_is_gone(parts: Parts) -> None:
    """Who has waited for a drop is told of the archive, and has no file without the month."""

    async def rows() -> int:
        async with PostgresExportSource(parts.postgres).rows(ExportQuery()) as found:
            return found.total

    async with dropping(parts):
        exported = asyncio.create_task(rows())
    with pytest.raises(EventsArchived):
        await exported


async def test_an_invoice_sees_that_a_month_is_gone(parts: Parts) -> None:
    """A level that lasts from it is refused, and not taken for none."""

    async def billed() -> list[Measured]:
        return await PostgresBilledUsage(parts.postgres).billed(ACME, [LATER])

    async with dropping(parts):
        measured = asyncio.create_task(billed())
    with pytest.raises(EventsArchived):
        await measured
