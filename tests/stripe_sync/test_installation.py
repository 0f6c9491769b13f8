"""A relay as it is installed: from a catalog to Stripe's totals, and the verbs beside it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.meters import StripeAccountMeters
from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.stripe_meters import AccountMeter
from tallygate.domain.stripe_sync import CUSTOMER_KEY, VALUE_KEY
from tallygate.domain.window import DAY_US, HOUR_US, SECOND_US, Window
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.billing import Issuing
from tallygate.settings_sources import load_settings
from tallygate.wiring import Role
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate_fake_stripe import Behaviour, FakeStripe, UnknownCustomer
from tests.e2e.processes import tallygate
from tests.servers import connection, eventually
from tests.sql.test_append_only import as_role
from tests.usage_events import event

CATALOG = """\
version: 1
meters:
  requests:
    aggregation: sum
    description: Requests
    stripe: {{way: meter_events, event_name: calls, since: 2026-01-01, window: minute, settle: 1s}}
  setup:
    stripe: {{way: invoice_items, since: 2026-01-01}}
plans:
  p: {{prices: [{{id: calls, model: per_unit, meter: requests, amount: 0.01}}]}}
tenants:
  acme: {{plan: p, stripe_customer_id: cus_acme}}
  other: {{plan: p}}
destinations:
  stripe:
    kind: stripe
    url: {url}
    secret: {{file: {key}}}
    reports_secret: {{file: {key}}}
"""
KEY = "sk_test_file"


@asynccontextmanager
async def relay(
    dsn: str, folder: Path, stripe: FakeStripe, **flags: object
) -> AsyncIterator[Running]:
    """Run a relay, with the rights of its role, on a catalog that names the fake."""
    (folder / "key").write_text(KEY)
    await apply(dsn, stripe, folder)
    await apply_roles(dsn)
    settings = load_settings(
        {
            "postgres_dsn": as_role(dsn, "tallygate_relay"),
            "ops_address": "127.0.0.1:0",
            "stripe_plan_ms": 100,
            "relay_poll_ms": 20,
            **flags,
        },
        environ={},
    )
    async with running(settings, frozenset({Role.RELAY})) as process:
        yield process


async def apply(dsn: str, stripe: FakeStripe, folder: Path) -> None:
    """Have the catalog applied."""
    postgres = Postgres(dsn)
    store = PostgresCatalogStore(postgres)
    text = CATALOG.format(url=stripe.url, key=folder / "key")
    parsed = parse(text)
    change = CatalogChange(parsed.catalog, parsed.tenants, text, 0)
    await store.write(change, (await store.newest()).version)
    await postgres.close()


async def use(dsn: str, number: int, amount: int, tenant: str = "acme") -> None:
    """Have the ledger hold usage of an hour ago."""
    at_us = time.time_ns() // 1000 - HOUR_US
    used = event(number, tenant_id=tenant, amount=amount, event_time_us=at_us)
    postgres = Postgres(dsn)
    await PostgresLedger(postgres).persist(LedgerBatch((used,)))
    await postgres.close()


async def issue(dsn: str) -> None:
    """Issue an invoice with a line that is to be an item."""
    postgres = Postgres(dsn)
    start_us = time.time_ns() // 1000 // DAY_US * DAY_US
    period, amount = Window(start_us - DAY_US, start_us), Decimal("12.50")
    line = InvoiceLine(
        *(1, LineKind.USAGE, PlanName("p"), period, amount, amount, PriceId("setup")),
        model=PriceModel.PER_UNIT,
        selection=Selection(MeterName("setup"), Aggregation.SUM),
    )
    made = Invoice(
        *(TenantId("acme"), period, "USD", (line,), amount, Decimal(0), Decimal(0), amount)
    )
    assert await PostgresInvoiceBooks(postgres).write(Issuing(made, "month end", "ann"), 0)
    await postgres.close()


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    """A Stripe on the machine's clock, that takes usage of any customer."""
    behaviour = Behaviour(unknown_customer=UnknownCustomer.ACCEPT, rate_limited=False)
    async with FakeStripe(behaviour=behaviour) as found:
        yield found


def total(stripe: FakeStripe) -> Decimal:
    """Return what Stripe has of acme."""
    now_s = time.time_ns() // 1000 // SECOND_US
    return stripe.total("calls", "cus_acme", 0, now_s - now_s % 60)


@pytest.mark.slow
async def test_a_relay_sends_usage(
    postgres_dsn: str, tmp_path: Path, stripe: FakeStripe, capfd: pytest.CaptureFixture[str]
) -> None:
    """Made by the command, fed by the ledger, sent by the relay; its figures show it."""
    (tmp_path / "key").write_text(KEY)
    await apply(postgres_dsn, stripe, tmp_path)
    shown = await tallygate("stripe", "sync-catalog", "--json", postgres_dsn=postgres_dsn)
    assert [row["step"] for row in shown.json()["meters"]] == ["create"]
    (row,) = shown.json()["prices"]
    assert (row["step"], row["lookup key"], row["asks for"]) == ("create", "p/calls", "1 usd")
    assert stripe.world().meters_by_event == {}
    done = await tallygate("stripe", "sync-catalog", "--apply", postgres_dsn=postgres_dsn)
    assert (done.code, "2 done" in done.err) == (0, True)
    await use(postgres_dsn, 1, 5)
    await use(postgres_dsn, 2, 7)
    await use(postgres_dsn, 3, 9, tenant="other")
    async with relay(postgres_dsn, tmp_path, stripe) as process:

        async def told() -> bool:
            return total(stripe) == Decimal(12)

        await eventually(told, what="the usage at Stripe")
        stripe.add_customer("cus_acme")
        await issue(postgres_dsn)

        async def itemized() -> bool:
            return [each.amount for each in stripe.world().invoice_items] == [1_250]

        await eventually(itemized, what="the invoice's item")
        await use(postgres_dsn, 4, 3)
        stripe.keys.revoke(KEY)

        async def held() -> bool:
            samples = process.metrics.registry
            labels = {"destination": "stripe", "reason": "key_refused"}
            return samples.get_sample_value("tallygate_stripe_held_back", labels) == 1

        await eventually(held, what="the key's refusal")
        value = process.metrics.registry.get_sample_value
        taken = {"destination": "stripe", "outcome": "taken"}
        assert value("tallygate_stripe_sends_total", taken) is not None
    assert KEY not in "".join(capfd.readouterr())
    async with connection(postgres_dsn) as admin:
        held_still = "select count(*) from tallygate.stripe_lane where leased_until is not null"
        assert await admin.fetchval(held_still) == 0


@pytest.mark.slow
async def test_the_verbs_mend(postgres_dsn: str, tmp_path: Path, stripe: FakeStripe) -> None:
    """What was refused is shown with its reason, and sent again after the fix."""
    await use(postgres_dsn, 1, 5)
    async with relay(postgres_dsn, tmp_path, stripe):

        async def refused() -> bool:
            async with connection(postgres_dsn) as admin:
                query = "select count(*) from tallygate.stripe_send where state = 'rejected'"
                return bool(await admin.fetchval(query))

        # Stripe has no meter of this name yet.
        await eventually(refused, what="the refusal")
        shown = await tallygate("stripe", "status", "--json", postgres_dsn=postgres_dsn)
        (row,) = shown.json()["left"]
        assert (row["state"], row["tenant"], row["value"]) == ("rejected", "acme", "5")
        client = Client(lambda: KEY, ClientOptions(url=stripe.url))
        await StripeAccountMeters(client).create_meter(
            AccountMeter("", "calls", "x", "sum", "", CUSTOMER_KEY, VALUE_KEY, active=True)
        )
        await client.close()
        mended = await tallygate("stripe", "retry", "--json", postgres_dsn=postgres_dsn)
        assert mended.json()["retry"][0]["sent again"] == 1

        async def told() -> bool:
            return total(stripe) == Decimal(5)

        await eventually(told, what="the usage at Stripe")
