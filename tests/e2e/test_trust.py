"""Exports, lineage, replays, retention and the audit log, as an operator has them."""

import csv
import io
import json
import os
import pwd
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.window import from_datetime
from tallygate.ports import LedgerBatch
from tests.e2e import catalogs
from tests.e2e.processes import Finished, rows_of, site, tallygate
from tests.servers import connection
from tests.usage_events import event

OLD_US = from_datetime(datetime(2024, 2, 15, 12, tzinfo=UTC))
DAYS = ("--from", "2026-11-20", "--to", "2026-11-21")


@dataclass(frozen=True, slots=True)
class Parts:
    """A ledger with usage, old and young, and a folder."""

    dsn: str
    folder: Path

    async def run(self, *arguments: object, code: int = 0, **settings: Any) -> Finished:
        """Run a verb against the ledger; it must end as said."""
        finished = await tallygate(*arguments, "--json", postgres_dsn=self.dsn, **settings)
        assert finished.code == code, finished.err
        assert "Traceback" not in finished.err
        return finished

    async def execute(self, statements: str) -> None:
        """Do something to the tables."""
        async with connection(self.dsn) as admin:
            await admin.execute(statements)

    async def log(self, *arguments: object) -> list[dict[str, Any]]:
        """Return rows of the audit log, the oldest first, without those of looking at it."""
        finished = await self.run("audit", "list", *arguments)
        rows = [*rows_of(finished, "audit")]
        return [row for row in reversed(rows) if not row["action"].startswith("audit ")]


@pytest.fixture
async def parts(postgres_dsn: str, tmp_path: Path) -> Parts:
    """Usage of today and of 2024, told to a destination."""
    found = Parts(postgres_dsn, tmp_path)
    await found.execute(
        "select tallygate.ensure_partitions('2024-02-01', '2024-02-01');"
        "insert into tallygate.destination (name, kind, url, types)"
        " values ('hook', 'webhook', 'http://127.0.0.1', '{usage.batch}')"
    )
    postgres = Postgres(postgres_dsn)
    ledger = PostgresLedger(postgres)
    await ledger.persist(LedgerBatch((event(1, amount=5), event(2, amount=7))))
    await ledger.persist(LedgerBatch((event(3, event_time_us=OLD_US),)))
    await postgres.close()
    return found


async def test_export(parts: Parts) -> None:
    """A file has the rows that the command says, and the log who took them, and for what."""
    out = parts.folder / "acme.csv"
    finished = await parts.run("export", "acme", "--out", out, "--from", "2026-01-01")
    (row,) = rows_of(finished, "exported")
    text = out.read_bytes().decode()
    assert [each["amount"] for each in csv.DictReader(io.StringIO(text))] == ["5", "7"]
    assert (row["rows"], row["bytes"]) == (2, len(text.encode()))
    again = await parts.run("export", "acme", "--out", out, code=1)
    assert "there already" in again.err
    asked, done, _, refused = await parts.log("--tenant", "acme")
    user = pwd.getpwuid(os.getuid()).pw_name
    assert asked["actor"].startswith(f"{user}@")
    assert (asked["action"], asked["role"], asked["call"]) == ("export", "command", done["call"])
    assert json.loads(asked["request"])["out"] == str(out)
    assert (asked["outcome"], done["outcome"]) == ("asked", "done")
    assert refused["outcome"] == "refused: INVALID_FIELD"


async def test_replays(parts: Parts) -> None:
    """Without --apply nothing changes and what would is shown; with it, once."""
    await parts.execute("update tallygate.usage_hour set sum = sum + 1")
    dry = await parts.run("replay", "rollups", *DAYS, code=1)
    (difference,) = rows_of(dry, "differences")
    assert (difference["ledger's sum"], difference["sum"]) == (12, 13)
    assert "--apply" in dry.err
    made = await parts.run("replay", "rollups", *DAYS, "--apply")
    assert rows_of(made, "rollups")[0]["buckets made anew"] == 1
    await parts.run("replay", "rollups", *DAYS)
    year = ("--destination", "hook", "--from", "2026-01-01", "--to", "2999-01-01")
    await parts.execute(
        "update tallygate.delivery set state = 'delivered', attempt = 1, finished_at = now()"
    )
    counted = await parts.run("replay", "messages", *year)
    assert rows_of(counted, "messages")[0]["delivered"] == 2
    for again in (2, 0):
        sent = await parts.run("replay", "messages", *year, "--apply")
        assert rows_of(sent, "messages")[0]["again"] == again
    unknown = ("--destination", "nowhere", *year[2:])
    assert "nowhere" in (await parts.run("replay", "messages", *unknown, code=1)).err


async def test_lineage(parts: Parts) -> None:
    """From a bucket to its events in pages, and from a message; what there is not ends with 1."""
    bucket = ("lineage", "bucket", "acme", "requests", "--at", "2026-11-20T10:00", "--rows", "1")
    first = await parts.run(*bucket)
    (head,) = rows_of(first, "bucket")
    assert (head["events"], head["sum"], head["so"]) == (2, 12, "agrees")
    following = await parts.run(*bucket, "--after", head["next"])
    pages = [rows_of(page, "events")[0]["event"] for page in (first, following)]
    assert pages == ["event-1", "event-2"]
    assert rows_of(following, "bucket")[0]["next"] is None
    story = await parts.run("lineage", "event", "event-1", "--tenant", "acme")
    (delivery,) = rows_of(story, "deliveries")
    told = await parts.run("lineage", "message", delivery["message"])
    assert [row["where"] for row in rows_of(told, "events")] == ["ledger", "ledger"]
    none = "00000000-0000-0000-0000-000000000000"
    await parts.run("lineage", "message", none, code=1)
    await parts.run("lineage", "bucket", "acme", "bytes", "--at", "2026-11-20", code=1)
    assert "--at" in (await parts.run(*bucket[:4], "--at", "noon", code=1)).err
    assert "--after" in (await parts.run(*bucket, "--after", "x", code=1)).err


async def test_retention(parts: Parts) -> None:
    """A month is planned, held, released, archived and dropped, and is still accounted for."""
    keep = {"retention_event_months": 14}
    planned = await parts.run("retention", "plan", **keep)
    assert [row["verdict"] for row in rows_of(planned, "months")] == ["archive"]
    assert rows_of(await parts.run("retention", "plan"), "months") == []
    held = await parts.run("retention", "hold", "acme", "--reason", "case 7", "--id", "h1")
    assert rows_of(held, "holds")[0]["hold"] == "h1"
    assert rows_of(await parts.run("retention", "plan", **keep), "months")[0]["verdict"] == "held"
    await parts.run("retention", "release", "h1", "--reason", "settled")
    assert rows_of(await parts.run("retention", "holds"), "holds")[0]["why"] == "settled"
    await parts.run("retention", "apply", **keep)
    made = await parts.run("retention", "archive", "--dir", parts.folder, **keep)
    (archived,) = rows_of(made, "archived")
    done = await parts.run("retention", "apply", **keep)
    assert [row["events"] for row in rows_of(done, "dropped")] == [1]
    story = await parts.run("explain", "event-3", "--tenant", "acme")
    values = {row["what"]: row["value"] for row in rows_of(story, "story")}
    assert values["archive"] == archived["file"]
    out = parts.folder / "all.csv"
    assert archived["file"] in (await parts.run("export", "acme", "--out", out, code=1)).err
    few = await tallygate("retention", "plan", postgres_dsn=parts.dsn, retention_event_months=3)
    assert few.code == 1
    assert "at least 14" in few.err


async def test_audit_of_commands_and_calls(parts: Parts, redis_url: str) -> None:
    """Calls by the command are in the log under the user's name, and the chain is verified."""
    async with site(parts.folder, redis_url=redis_url, counter_rebuild="none") as place:
        control = await place.start("control", postgres_dsn=parts.dsn)
        at = ("--control-address", control.address)
        file = catalogs.write(parts.folder, catalogs.OPEN)
        applied = await tallygate("apply", "-f", file, *at)
        assert applied.code == 0, applied.err
        assert (await tallygate("usage", "--tenant", "acme", *at)).code == 0
        assert await control.metric("tallygate_audit_entries_total") == 3
    rows = await parts.log()
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("ApplyCatalog", "asked"),
        ("ApplyCatalog", "done"),
        ("QueryUsage", "done"),
    ]
    assert {row["actor"] for row in rows} == {(await parts.log())[0]["actor"]}
    assert "@" in rows[0]["actor"]
    verified = await parts.run("audit", "verify")
    end = rows_of(verified, "chain")[0]["end"]
    await parts.run("audit", "verify", "--expect", end)
    await parts.execute(
        "alter table tallygate.audit_log disable trigger user;"
        "update tallygate.audit_log set actor = 'eve' where seq = 2"
    )
    broken = await parts.run("audit", "verify", code=1)
    assert [(row["row"], row["flaw"]) for row in rows_of(broken, "breaks")] == [(2, "changed")]
    wrong = f"1:{'0' * 64}"
    noted = await parts.run("audit", "verify", "--expect", wrong, code=1)
    assert {row["flaw"] for row in rows_of(noted, "breaks")} == {"changed", "rewritten"}


async def test_on_a_standby(parts: Parts) -> None:
    """Where nothing can be written, what shows something runs and says so; the rest does not."""
    reads = replace(parts, dsn=f"{parts.dsn}&options=-c%20default_transaction_read_only%3Don")
    shown = await reads.run("lineage", "event", "event-1", "--tenant", "acme")
    assert "in no audit log" in shown.err
    out = parts.folder / "x.csv"
    await reads.run("export", "acme", "--out", out, code=1)
    assert not out.exists()
