"""What the page on the audit log shows in Python holds for the rows that there are."""

from typing import Any

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.commands.audit import sheet_of
from tallygate.domain.trail import TrailEntry
from tallygate.ports.trail import TrailQuery

from .pages import block


async def test_rows_are_hashed_as_shown(postgres_dsn: str) -> None:
    """The function of the page gives each row's hash, of what the command shows as JSON."""
    names: dict[str, Any] = {}
    exec(block("docs/audit.md", "python", "def row_hash"), names)
    postgres = Postgres(postgres_dsn)
    log = PostgresTrailLog(postgres)
    await log.append(
        [
            TrailEntry("ada@host", "command", "export", "acme", "c1", '{"a":"\\u00fc"}', "00"),
            TrailEntry("ü", "control", "ApplyPlan", outcome="asked"),
        ]
    )
    sheet = sheet_of([*await log.page(TrailQuery())], hashes=True)
    shown = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
    await postgres.close()
    assert len(shown) == 2
    for row in shown:
        assert names["row_hash"](row) == row["hash"]
        assert names["row_hash"]({**row, "actor": "eve"}) != row["hash"]
    assert shown[0]["hash before"] == shown[1]["hash"]
