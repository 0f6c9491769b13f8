"""Usage looked at, compared and reconciled by the commands, and by control by itself."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.anomaly import Used
from tallygate.domain.ids import EventId, TenantId
from tallygate.domain.window import HOUR_US, to_datetime
from tallygate.ports import LedgerBatch
from tests.anomaly_usage import MONDAY, WEEK, busy
from tests.builders import now_us
from tests.e2e import catalogs
from tests.e2e.processes import rows_of, site, tallygate
from tests.servers import connection, eventually
from tests.usage_events import NOON_US, event

CATALOG = """\
version: 1
meters:
  requests: {aggregation: sum, unit: request}
plans:
  free:
    limits:
      - {id: daily, meter: requests, kind: window, period: day, limit: 1_000_000}
tenants:
  acme: {plan: free}
  other: {plan: free}
destinations:
  hook:
    kind: webhook
    url: http://127.0.0.1:9
    types: [reconcile.drift]
    secret: {env: HOOK_SECRET}
"""
SETTLE_S = 60.0
DAILY_ACCURACY = r'tallygate_reconcile_accuracy_ratio\{kind="daily"\}'


@pytest.fixture
async def ledger(postgres_dsn: str) -> AsyncIterator[PostgresLedger]:
    """A ledger to be filled."""
    postgres = Postgres(postgres_dsn)
    yield PostgresLedger(postgres)
    await postgres.close()


async def test_a_look_back_finds_the_hour(ledger: PostgresLedger, postgres_dsn: str) -> None:
    """The unusual hour is shown with what was expected; the command changes nothing."""
    spike = MONDAY + 5 * WEEK + 13
    usage = busy(0, range(MONDAY, MONDAY + 6 * WEEK))
    usage[spike] = Used(usage[spike].units * 9, 1)
    events = [
        event(number, amount=each.units, event_time_us=hour * HOUR_US)
        for number, (hour, each) in enumerate(usage.items(), 1)
    ]
    await ledger.persist(LedgerBatch(tuple(events)))
    span = ("--from", at(MONDAY + 4 * WEEK), "--to", at(MONDAY + 6 * WEEK))
    asked = ("anomalies", "acme", *span, "--events-min", 1, "--json")
    found = await tallygate(*asked, postgres_dsn=postgres_dsn)
    assert found.code == 0, found.err
    (row,) = rows_of(found, "anomalies")
    assert (row["meter"], row["hour"], row["direction"]) == ("requests", at(spike), "high")
    assert row["used"] == usage[spike].units > row["usual to"] > row["expected"]
    assert (row["held against"], row["noted"]) == ("seasonal", False)
    assert rows_of(found, "looked at") == [{"hours": 2 * WEEK, "anomalies": 1}]
    wrong = await tallygate("anomalies", "acme", "--sensitivity", "0", postgres_dsn=postgres_dsn)
    assert (wrong.code, "--sensitivity" in wrong.err) == (1, True)
    async with connection(postgres_dsn) as admin:
        assert await admin.fetchval("select count(*) from tallygate.usage_anomaly") == 0
        assert await admin.fetchval("select count(*) from tallygate.anomaly_series") == 0


def at(hour: int) -> str:
    """Return an hour as commands take and show it."""
    return to_datetime(hour * HOUR_US).isoformat().replace("+00:00", "Z")


async def test_another_systems_export_is_compared(
    ledger: PostgresLedger, postgres_dsn: str, tmp_path: Path
) -> None:
    """What is the same passes; planted differences are each found, shown, written and exit 1."""
    events = [
        event(number, amount=number, event_time_us=NOON_US + number * HOUR_US)
        for number in range(1, 50)
    ]
    await ledger.persist(LedgerBatch(tuple(events)))
    theirs = [
        {
            "who": each.tenant_id,
            "what": "API calls",
            "ms": each.event_time_us // 1_000,
            "n": f"{each.amount / 1000:.3f}",
            "id": each.event_id,
        }
        for each in events
    ]
    options: tuple[object, ...] = (
        *("--tenant-column", "who", "--meter-column", "what", "--time-column", "ms"),
        *("--time-format", "ms", "--amount-column", "n", "--unit", "1000"),
        *("--map", "API calls=requests", "--json"),
    )
    same = write(tmp_path / "same.jsonl", theirs)
    found = await tallygate("compare", same, *options, postgres_dsn=postgres_dsn)
    assert found.code == 0, found.out + found.err
    assert found.figures("result")["matched"] == 3
    theirs[3]["n"] = "0.005"
    theirs.append({**theirs.pop(9), "id": "unknown"})
    planted = write(tmp_path / "planted.jsonl", theirs)
    out = tmp_path / "differences.jsonl"
    found = await tallygate(
        "compare", planted, *options, "--id-column", "id", "--out", out, postgres_dsn=postgres_dsn
    )
    assert found.code == 1
    assert [(row["event"], row["what"]) for row in rows_of(found, "differences")] == [
        ("event-10", "missing there"),
        ("event-4", "different"),
        ("unknown", "missing here"),
    ]
    assert [json.loads(line)["event_id"] for line in out.read_text().splitlines()] == [
        *("event-10", "event-4", "unknown")
    ]
    by_day = await tallygate("compare", planted, *options, postgres_dsn=postgres_dsn)
    (row,) = rows_of(by_day, "differences")
    assert (row["here"], row["there"]) == (sum(range(1, 14)), sum(range(1, 14)) + 1)
    broken = tmp_path / "broken.csv"
    broken.write_text("tenant_id,meter,event_time,amount\nacme,requests,never,1\n")
    wrong = await tallygate("compare", broken, postgres_dsn=postgres_dsn)
    assert (wrong.code, "line 2, event_time" in wrong.err) == (1, True)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_control_reconciles_by_itself(
    ledger: PostgresLedger, tmp_path: Path, redis_url: str, postgres_dsn: str
) -> None:
    """With the rights of its role alone, control finds the planted drift, and tells it once."""
    today = now_us()
    await apply_roles(postgres_dsn)
    await ledger.persist(
        LedgerBatch(
            (
                event(1, amount=5, event_time_us=today),
                event(2, tenant_id=TenantId("other"), event_time_us=today),
                event(4, amount=-1, refund_of=EventId("event-1"), event_time_us=today),
            )
        )
    )
    as_control = f"{postgres_dsn}&options=-c%20role%3Dtallygate_control"
    file = catalogs.write(tmp_path, CATALOG)
    async with site(tmp_path, redis_url=redis_url) as place:
        control = await place.start("control", postgres_dsn=as_control, reconcile="off")
        applied = await tallygate("apply", "-f", file, "--control-address", control.address)
        assert applied.code == 0, applied.err + applied.out
        async with connection(postgres_dsn) as admin:
            await admin.execute(
                "update tallygate.usage_minute set sum = sum + 1 where tenant_id = 'other'"
            )
        found = await tallygate("reconcile", "other", "--json", postgres_dsn=postgres_dsn)
        assert found.code == 1
        (pair,) = rows_of(found, "pairs")
        assert (pair["verdict"], pair["ledger"], pair["rollup"]) == ("drift", 1, 2)
        (repair,) = rows_of(found, "repairs")
        assert (repair["repair"], repair["append"]) == ("rollup recompute", -1)
        other = await place.start("control", postgres_dsn=as_control)

        async def told() -> bool:
            return await other.metric(DAILY_ACCURACY) > 0

        await eventually(told, SETTLE_S, what="a reconciliation")
        assert await other.metric(DAILY_ACCURACY) == 0.5

        async def looked() -> bool:
            return await other.metric("tallygate_anomaly_series") == 2

        await eventually(looked, SETTLE_S, what="a look at usage")
        failed = r'tallygate_loop_iterations_total\{loop="anomalies",outcome="failed"\}'
        assert await other.metric(failed) == 0
        assert await other.metric(r'tallygate_reconcile_drift_units\{step="rollup"\}') == 1
    recorded = await tallygate("reconcile", "--record", "--json", postgres_dsn=as_control)
    assert recorded.figures("result") == {
        "exact": 1,
        "drift": 1,
        "in_flight": 0,
        "late": 0,
        "archived": 0,
        "unknown": 0,
    }
    async with connection(postgres_dsn) as admin:
        runs = await admin.fetch("select run_id from tallygate.reconcile_run order by run_id")
        messages = await admin.fetch("select aggregateid from tallygate.outbox")
    assert {row["run_id"].partition("-")[0] for row in runs} == {"daily", "manual"}
    assert [row["aggregateid"] for row in messages] == ["other"]
