"""Invoices by the command: what is previewed, issued and explained is what the ledger has."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.credit import GrantAsked, GrantId
from tallygate.domain.ids import EventId, LimitId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, from_datetime
from tallygate.ports import CatalogChange, LedgerBatch
from tests.e2e.processes import Finished, tallygate
from tests.servers import connection
from tests.usage_events import event

# Each test runs several commands, each a process of its own that has everything to import.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ACME = TenantId("acme")
START_US = from_datetime(datetime(2026, 1, 1, tzinfo=UTC)) - HOUR_US
"""Midnight in Berlin."""

BOOK = """
version: 1
meters:
  calls: {aggregation: count}
  tokens: {}
  idle: {}
plans:
  start:
    limits: [{id: prepaid, meter: tokens, kind: balance}]
    prices:
      - {id: base, model: flat, amount: 10}
      - {id: calls, model: per_unit, meter: calls, amount: 0.5, included: 2}
    terms: {currency: EUR}
  pro:
    limits: [{id: prepaid, meter: tokens, kind: balance}]
    prices:
      - {id: base, model: flat, amount: 31}
      - {id: calls, model: per_unit, meter: calls, amount: 0.25}
      - {id: tokens, model: per_unit, meter: tokens, per: model, credits: 2}
    terms: {currency: EUR, credit: {price: 0.01, balance: prepaid}}
tenants:
  acme: {plan: start, time_zone: Europe/Berlin, currency: USD}
"""


async def filled(dsn: str) -> None:
    """Fill a ledger: ten days of one plan, twenty-one of another, calls, tokens, a grant."""
    postgres = Postgres(dsn)
    try:
        store = PostgresCatalogStore(postgres)
        parsed = parse(BOOK)
        await store.write(CatalogChange(parsed.catalog, parsed.tenants, "", START_US - 1), 0)
        (tenant,) = parsed.tenants
        pro = replace(tenant, plan=type(tenant.plan)("pro"))
        change = CatalogChange(parsed.catalog, (pro,), "", START_US + 10 * DAY_US)
        await store.write(change, 1)
        await PostgresCreditLedger(postgres).grant(
            GrantAsked(ACME, LimitId("prepaid"), GrantId("gift"), 100, starts_us=START_US), 0, 1
        )
        await PostgresLedger(postgres).persist(LedgerBatch(tuple(events())))
    finally:
        await postgres.close()


def events() -> list[Any]:
    """Return calls on both sides of the change of plans, and tokens of two models."""
    calls = MeterName("calls")
    turn = START_US + 10 * DAY_US
    ats = [START_US, turn - 1, turn - 2, turn, turn + 1, START_US + 31 * DAY_US]
    found = [event(number, meter=calls, event_time_us=at_us) for number, at_us in enumerate(ats, 1)]
    for number, (amount, model) in enumerate([(30, "a"), (40, "b"), (5, "a")], 10):
        found.append(
            event(
                number,
                meter=MeterName("tokens"),
                amount=amount,
                event_time_us=turn + number * HOUR_US,
                dimensions={"model": model},
            )
        )
    refund = event(
        20,
        meter=MeterName("tokens"),
        amount=-5,
        event_time_us=turn + 30 * HOUR_US,
        dimensions={"model": "a"},
        refund_of=EventId("event-12"),
    )
    return [*found, refund, event(21, meter=MeterName("idle"), event_time_us=turn)]


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """The address of a filled ledger."""
    await filled(postgres_dsn)
    return postgres_dsn


async def invoice(dsn: str, *arguments: object) -> Finished:
    """Run a verb of `invoice`."""
    return await tallygate("invoice", *arguments, postgres_dsn=dsn)


async def rate(dsn: str, value: str) -> Finished:
    """Write what a euro is worth."""
    written = ("--from", "2026-01-31", "--source", "a bank")
    return await tallygate("rates", "set", "EUR", "USD", value, *written, postgres_dsn=dsn)


async def document(dsn: str, *arguments: object) -> dict[str, Any]:
    """Return what a verb prints as JSON."""
    finished = await invoice(dsn, *arguments, "--format", "json")
    assert finished.code == 0, finished.err
    found: dict[str, Any] = finished.json()
    return found


async def test_a_month_from_events_to_an_issued_invoice(dsn: str) -> None:
    """Lines add up in the tenant's currency; what is issued stays when the ledger goes on."""
    missing = await invoice(dsn, "preview", "acme", "--period", "2026-01")
    assert missing.code == 1
    assert "exchange_rate: there is no rate of EUR in USD for 2026-01-31" in missing.err
    assert (await rate(dsn, "1.25")).code == 0
    shown = await document(dsn, "preview", "acme", "--period", "2026-01")
    lines = [
        (line["kind"], line.get("price_id"), line["quantity"], line["amount"])
        for line in shown["invoice"]["lines"]
    ]
    # 10 x 10/31 x 1.25, (3 - 1 included) x 0.5 x 1.25, 31 x 21/31 x 1.25, 2 x 0.25 x 1.25,
    # 60 and 80 credits at 0.0125, of which 100 are prepaid.
    assert lines == [
        ("fee", "base", "1", "4.03"),
        ("usage", "calls", "3", "1.25"),
        ("fee", "base", "1", "26.25"),
        ("usage", "calls", "2", "0.62"),
        ("usage", "tokens", "30", "0.75"),
        ("credits", "tokens", "0", "-0.75"),
        ("usage", "tokens", "40", "1.00"),
        ("credits", "tokens", "0", "-0.50"),
    ]
    assert shown["invoice"]["total"] == "32.65"
    assert shown["invoice"]["unpriced"] == ["idle"]
    assert shown["invoice"]["catalogs"] == [1, 2]

    issued = await document(dsn, "issue", "acme", "--period", "2026-01", "--reason", "month end")
    assert issued["issued"]["revision"] == 1
    assert (await rate(dsn, "1.5")).code == 0
    await document(dsn, "issue", "acme", "--period", "2026-01")
    again = await document(dsn, "issue", "acme", "--period", "2026-01")
    assert again["issued"]["revision"] == 2
    first = await document(dsn, "show", "acme", "--period", "2026-01", "--revision", "1")
    assert first == issued
    listed = await invoice(dsn, "list", "--tenant", "acme", "--json")
    assert [row["total"] for row in listed.json()["invoices"]] == ["39.19", "32.65"]


async def test_credits_are_burned_once(dsn: str) -> None:
    """What an issued invoice has burned is gone for the next period, and there for its own."""
    assert (await rate(dsn, "1")).code == 0
    before = await document(dsn, "issue", "acme", "--period", "2026-01")
    assert await document(dsn, "issue", "acme", "--period", "2026-01") == before
    async with connection(dsn) as admin:
        burned = await admin.fetchval(
            "select sum((line -> 'burn' ->> 'units')::numeric) from tallygate.invoice,"
            " jsonb_array_elements(lines) as line where line ? 'burn'"
        )
    assert burned == 100


async def test_every_line_leads_to_its_events(dsn: str) -> None:
    """Rollups and events are shown in pages that go on where the last one ended."""
    assert (await rate(dsn, "1")).code == 0
    shown = await document(dsn, "preview", "acme", "--period", "2026-01", "--explain")
    found = {
        each["line"]: ([one["event_id"] for one in each["events"]], each["rollups"])
        for each in shown["evidence"]
    }
    assert found[2][0] == ["event-1", "event-3", "event-2"]
    assert sum(bucket["count"] for bucket in found[2][1]) == 3
    assert found[5] == (["event-10", "event-12", "event-20"], [])
    page = ("--line", "2", "--events", "2")
    first = await document(dsn, "preview", "acme", "--period", "2026-01", *page)
    more = first["evidence"][0]["more_from"]
    rest = await document(dsn, "preview", "acme", "--period", "2026-01", *page, "--after", more)
    assert [each["event_id"] for each in rest["evidence"][0]["events"]] == ["event-2"]
    assert rest["evidence"][0]["more_from"] == ""
    table = await invoice(dsn, "preview", "acme", "--period", "2026-01", "--explain")
    assert "line 2: 3 of 3 events and their refunds" in table.out
    assert "No price of the plan is for usage of idle." in table.err


async def test_a_page_is_text_alone(dsn: str) -> None:
    """Whatever a value says is no markup, and the page asks for nothing else."""
    postgres = Postgres(dsn)
    nasty = event(
        90,
        meter=MeterName("tokens"),
        event_time_us=START_US + 12 * DAY_US,
        dimensions={"model": "<script>alert(1)</script>"},
    )
    await PostgresLedger(postgres).persist(LedgerBatch((nasty,)))
    await postgres.close()
    assert (await rate(dsn, "1")).code == 0
    page = await invoice(dsn, "preview", "acme", "--period", "2026-01", "--format", "html")
    assert page.out.startswith("<!doctype html>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.out
    assert "<script" not in page.out
    assert "http" not in page.out


JANUARY = ("acme", "--period", "2026-01")
REFUSED = [
    (("preview", "nobody"), "tenant"),
    (("preview", "acme", "--period", "2025-01"), "tenant: the tenant had no plan"),
    (("preview", "acme", "--period", "january"), "--period: must be a month"),
    (("issue", "acme", "--period", "2099-01"), "period: is not over"),
    (("show", *JANUARY), "period: no such invoice"),
    (("preview", *JANUARY, "--line", "99"), "--line: there are lines 1"),
    (("preview", *JANUARY, "--line", "1"), "line: is for no usage"),
    (("preview", *JANUARY, "--explain", "--after", "1/a"), "--after: needs"),
    (("preview", *JANUARY, "--line", "2", "--after", "x"), "--after: must"),
]


async def test_what_cannot_be_done_is_one_line(dsn: str) -> None:
    """The line names the field, and nothing is on stdout."""
    assert (await rate(dsn, "1")).code == 0
    ended = await asyncio.gather(*(invoice(dsn, *arguments) for arguments, _ in REFUSED))
    for finished, (arguments, told) in zip(ended, REFUSED, strict=True):
        assert (finished.code, finished.out) == (1, ""), arguments
        assert told in finished.err, arguments


async def test_rates_are_taken_whole_or_not_at_all(postgres_dsn: str, tmp_path: Path) -> None:
    """Every fault of a file is told with its line; a good file adds once."""
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "base,quote,from,rate,source\nEUR,USD,2026-01-01,1.1,a bank\nEUX,USD,2026-01-01,0,a bank\n"
        "EUR,USD,yesterday,1,a bank\n"
    )
    refused = await tallygate("rates", "import", bad, postgres_dsn=postgres_dsn)
    assert refused.code == 1
    for told in (
        "line 3: rate.base 'EUX' is not an ISO 4217 code; did you mean",
        "line 3: rate.rate must be above 0",
        "line 4: rate must be base,quote,from,rate,source",
    ):
        assert told in refused.err
    good = tmp_path / "good.csv"
    good.write_text("base,quote,from,rate,source\nEUR,USD,2026-01-01,1.1,a bank\n")
    assert (await tallygate("rates", "import", good, postgres_dsn=postgres_dsn)).code == 0
    again = await tallygate("rates", "import", good, postgres_dsn=postgres_dsn)
    assert "0 of 1 rate(s) written" in again.err
    listed = await tallygate("rates", "list", "--json", postgres_dsn=postgres_dsn)
    assert listed.json()["rates"] == [
        {
            "base": "EUR",
            "quote": "USD",
            "from": "2026-01-01T00:00:00Z",
            "rate": "1.1",
            "source": "a bank",
        }
    ]


async def test_the_control_role_may_issue(dsn: str) -> None:
    """Control's rights are enough; nobody may edit what was issued, or a rate."""
    await apply_roles(dsn)
    own = f"{dsn}{'&' if '?' in dsn else '?'}options=-c%20role%3Dtallygate_control"
    assert (await rate(own, "1")).code == 0
    assert (await document(own, "issue", "acme", "--period", "2026-01"))["issued"]["revision"] == 1
    async with connection(dsn) as admin:
        for table in ("invoice", "exchange_rate"):
            for role in ("tallygate_control", "tallygate_ingest", "tallygate_read"):
                for right in ("update", "delete", "truncate"):
                    assert not await admin.fetchval(
                        "select has_table_privilege($1, $2, $3)", role, f"tallygate.{table}", right
                    )
            with pytest.raises(Exception, match="append-only"):
                await admin.execute(f"delete from tallygate.{table}")
        stored = await admin.fetchrow("select document, lines from tallygate.invoice")
    assert stored is not None
    assert b'"total":' in stored["document"]
