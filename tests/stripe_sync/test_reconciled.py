"""`tallygate reconcile` holds usage, intents, Stripe's sums and invoices together, to the unit."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.domain.catalog import Aggregation, Catalog, Tenant
from tallygate.domain.ids import PlanName
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.window import MINUTE_US, Calendar, Period, window_at
from tallygate.flow.reconcile_money import stripe_figure
from tallygate.ports import CatalogChange
from tallygate.ports.billing import Issuing
from tallygate.ports.reconcile import IntendedUsage
from tests.e2e.processes import Finished, rows_of, tallygate
from tests.servers import connection
from tests.stripe_world import CUSTOMER, EVENT, METER, START_US, TENANT, StripeWorld, stripe_world

USED: Final = 12
JANUARY: Final = window_at(Period.BILLING_PERIOD, Calendar(), START_US)


@dataclass(frozen=True, slots=True)
class Books:
    """A world in which usage was told, summed up and invoiced, a month that is long over."""

    world: StripeWorld

    async def reconcile(self) -> Finished:
        """Run the command on January."""
        asked = ("reconcile", TENANT, "--period", "2026-01-15", "--stripe", "--json")
        return await tallygate(*asked, postgres_dsn=self.world.dsn)

    async def invoice(self, quantity: int) -> None:
        """Issue January's invoice, or another revision of it."""
        plan, amount = PlanName("p"), Decimal(quantity)
        line = InvoiceLine(
            *(1, LineKind.USAGE, plan, JANUARY, amount, amount, PriceId("calls")),
            model=PriceModel.PER_UNIT,
            selection=Selection(METER, Aggregation.SUM),
            quantity=amount,
            count=2,
            charged=amount,
            unit="USD",
        )
        made = Invoice(TENANT, JANUARY, "USD", (line,), amount, Decimal(0), Decimal(0), amount)
        books = PostgresInvoiceBooks(self.world.postgres)
        assert await books.write(Issuing(made, "month end", "ann"), await books.newest(TENANT))

    async def edit(self, statement: str) -> None:
        """Do to a table what nobody may."""
        async with connection(self.world.dsn) as admin:
            await admin.execute("set session_replication_role = replica")
            await admin.execute(statement)

    async def tell(self) -> None:
        """Have Stripe know of a unit that nobody used."""
        api = self.world.client().stripe()
        await api.v1.billing.meter_events.create_async(
            {
                "event_name": EVENT,
                "payload": {"stripe_customer_id": CUSTOMER, "value": "1"},
                "timestamp": START_US // 1_000_000,
            },
            {"api_key": self.world.key},
        )
        self.world.pass_s(600)


@pytest.fixture
async def books(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Books]:
    """All steps, each with the same units."""
    key = tmp_path / "key"
    key.write_text("sk_test_tallygate")
    key.chmod(0o600)
    async with stripe_world(postgres_dsn) as world:
        catalog = await world.catalogs.effective(START_US)
        assert isinstance(catalog, Catalog)
        accounts = tuple(replace(each, secret_file=str(key)) for each in catalog.destinations)
        tenant = Tenant(TENANT, PlanName("p"), stripe_customer_id=CUSTOMER)
        change = CatalogChange(replace(catalog, destinations=accounts), (tenant,), "", 1)
        await PostgresCatalogStore(world.postgres).write(change, 0)
        await world.use(5, START_US + MINUTE_US)
        await world.use(7, START_US + 2 * MINUTE_US)
        world.pass_s(6 * 3_600)
        await world.sync()
        assert await world.states() == {"delivered": 1}
        world.pass_s(3_600)
        made = Books(world)
        await made.invoice(USED)
        yield made


ROLLUP: Final = "update tallygate.usage_minute set sum = sum {} where sum in (5, 6)"
INTENT: Final = "update tallygate.stripe_intent set quantity = quantity {}"


async def blamed(books: Books) -> list[tuple[object, ...]]:
    """Return the steps at which the command finds that something began, which exits 1."""
    found = await books.reconcile()
    assert found.code == 1, found.out + found.err
    return [
        (row["step"], row["drift"], row["repair"], row["append"])
        for row in rows_of(found, "repairs")
        if not str(row["how"]).startswith("with ")
    ]


async def test_every_step_agrees(books: Books) -> None:
    """Usage, intents, what was sent, Stripe's sum and the invoice are the same: exit 0."""
    found = await books.reconcile()
    assert found.code == 0, found.out + found.err
    (row,) = rows_of(found, "pairs")
    assert row["verdict"] == "exact"
    steps = ("ledger", "rollup", "intents", "sent", "stripe", "invoice")
    assert [row[step] for step in steps] == [USED] * 6
    async with connection(books.world.dsn) as admin:
        asked = await admin.fetchval(
            "select count(*) from tallygate.audit_log where action = 'reconcile'"
        )
    assert asked


async def test_each_planted_unit_is_found(books: Books) -> None:
    """One unit too many is found at the step where it is, with what to append, and exit 1."""
    await books.edit(ROLLUP.format("+ 1"))
    assert await blamed(books) == [("rollup", 1, "rollup recompute", -1)]
    await books.edit(ROLLUP.format("- 1"))
    await books.edit(INTENT.format("+ 1"))
    assert await blamed(books) == [("intents", 1, "intent", -1)]
    await books.edit(INTENT.format("- 1"))
    await books.invoice(USED + 1)
    assert await blamed(books) == [("invoice", 1, "invoice adjustment", -1)]
    await books.invoice(USED)
    await books.tell()
    assert await blamed(books) == [("stripe", 1, "negative intent", -1)]


async def test_what_was_refused_is_missing(books: Books) -> None:
    """What Stripe refused is no drift of the intents: nobody else will send it."""
    await books.edit("update tallygate.stripe_send set state = 'rejected'")
    assert ("sent", -USED, "replacement intent", USED) in await blamed(books)


def intended(**fields: object) -> IntendedUsage:
    """Return what is intended, with other fields replaced."""
    usage = IntendedUsage(0, 10, 10, 0, 10, 0, 0, 0, 0, 0, (CUSTOMER,), shared=False)
    return replace(usage, **fields)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("summed", "fields", "in_flight"),
    [
        ("10", {}, 0),
        ("9", {}, 0),
        ("7", {"lacks": 3}, 3),
        ("6", {"lacks": 3}, 0),
        ("12", {"exceeds": 2}, -2),
        ("13", {"exceeds": 2}, 0),
    ],
)
def test_a_sum_may_be_behind(summed: str, fields: dict[str, int], in_flight: int) -> None:
    """By what was taken just now, and ahead by what may have been taken; by no more."""
    figure = stripe_figure(Decimal(summed) / 1000, "0.001", intended(**fields))
    assert (figure.units, figure.in_flight) == (Decimal(summed), Decimal(in_flight))
