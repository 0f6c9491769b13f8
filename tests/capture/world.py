"""An app's database with capture in it.

Owns installing the package and reading what it holds. Refuses to know who drains it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tallygate.adapters.capture.outbox import install_script
from tests.servers import connection

DOCUMENTS = """
create schema app;
create table app."Documents" (
    id serial primary key, org_id text, body text, kind text default 'note', size integer
)
"""
TABLE = 'app."Documents"'


@asynccontextmanager
async def app(dsn: str, *, roles: bool = False) -> AsyncIterator["App"]:
    """Install capture beside a table of documents; lend both."""
    async with connection(dsn) as opened:
        await opened.execute(install_script(roles=roles))
        await opened.execute(DOCUMENTS)
        yield App(opened)


class App:
    """An app's connection to its database."""

    def __init__(self, opened: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.sql = opened

    async def capture(self, meter: str = "rows", amount: str = "1", **options: Any) -> int:
        """Capture the documents; return the capture's number."""
        names = "".join(f", {name} => ${place}" for place, name in enumerate(options, 4))
        asked = f"select tallygate.capture($1, $2, tenant => 'org_id', amount => $3{names})"
        return int(await self.sql.fetchval(asked, TABLE, meter, amount, *options.values()))

    async def level(
        self, meter: str = "storage", amount: str = "octet_length(body)", **options: Any
    ) -> int:
        """Capture how much lies in the documents, folded whenever that is asked for."""
        options.setdefault("every_s", 0)
        names = "".join(f", {name} => ${place}" for place, name in enumerate(options, 4))
        asked = f"select tallygate.capture_level($1, $2, tenant => 'org_id', amount => $3{names})"
        return int(await self.sql.fetchval(asked, TABLE, meter, amount, *options.values()))

    async def insert(self, tenant: str | None, *bodies: str) -> None:
        """Write documents in one statement."""
        await self.sql.execute(
            f"insert into {TABLE} (org_id, body) select $1, unnest($2::text[])", tenant, bodies
        )

    async def captured(self, meter: str) -> list[tuple[str, int]]:
        """Return whose and how much waits in the outbox, in the order of writing."""
        rows = await self.sql.fetch(
            "select tenant_id, amount from tallygate.captured where meter = $1"
            " order by captured_id",
            meter,
        )
        return [(row["tenant_id"], row["amount"]) for row in rows]

    async def unmeasured(self) -> list[tuple[int, str]]:
        """Return how many rows could not be measured, and why."""
        rows = await self.sql.fetch(
            "select row_count, reason from tallygate.capture_unmeasured order by unmeasured_id"
        )
        return [(row["row_count"], row["reason"]) for row in rows]

    async def fold(self) -> int:
        """Fold the levels."""
        return int(await self.sql.fetchval("select tallygate.capture_fold(10000)"))

    async def levels(self) -> dict[str, int]:
        """Return the levels, as they were folded and are to be told, of each tenant."""
        rows = await self.sql.fetch("select tenant_id, units from tallygate.capture_level")
        return {row["tenant_id"]: int(row["units"]) for row in rows if row["units"]}

    async def lying(self) -> dict[str, int]:
        """Return what lies in the table, of each tenant."""
        rows: Sequence[asyncpg.Record] = await self.sql.fetch(
            f"select org_id, sum(octet_length(body)) as units from {TABLE}"
            " where octet_length(body) > 0 group by org_id"
        )
        return {row["org_id"]: row["units"] for row in rows}
