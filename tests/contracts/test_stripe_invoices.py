"""The contract of issued invoices on their way to Stripe, on the fake and on Postgres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_invoices import PostgresStripeInvoices
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.invoice import Invoice
from tallygate.domain.price import NO_METER
from tallygate.domain.stripe_intent import ChargeLine
from tallygate.domain.stripe_invoice import item_intent
from tallygate.domain.window import DAY_US, Window
from tallygate.ports.billing import InvoiceBooks, Issuing
from tallygate.ports.stripe_invoice import IssuedRevision, StripeInvoices
from tallygate.ports.stripe_store import StripeIntents
from tallygate.testing.billing import FakeInvoiceBooks
from tallygate.testing.stripe_invoice import FakeStripeInvoices
from tallygate.testing.stripe_store import FakeStripeStore
from tests.usage_events import NOON_US

ACME, OTHER = TenantId("acme"), TenantId("other")
METER = MeterName("requests")
PERIOD = Window(NOON_US, NOON_US + 30 * DAY_US)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is under test, and what fills that which it reads."""

    invoices: StripeInvoices
    books: InvoiceBooks
    intents: StripeIntents

    async def issue(self, tenant: TenantId, total: int, period: Window = PERIOD) -> Invoice:
        """Issue the next revision of an invoice."""
        amount = Decimal(total)
        made = Invoice(tenant, period, "EUR", (), amount, Decimal(0), Decimal(0), amount)
        assert await self.books.write(Issuing(made, "", ""), await self.books.newest(tenant))
        return made

    async def issued(self, after: int = 0, since_us: int = 0, count: int = 9) -> list[str]:
        """Return what is to be told, as tenant and revision."""
        found = await self.invoices.issued("stripe", after, since_us, count)
        assert sorted(each.number for each in found) == [each.number for each in found]
        return [f"{each.tenant_id}/{each.revision}" for each in found]


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def bench(dsn: str | None) -> AsyncIterator[Bench]:
    """Each in turn."""
    if dsn is None:
        books, store = FakeInvoiceBooks(), FakeStripeStore(lambda: NOON_US)
        yield Bench(FakeStripeInvoices(books, store), books, store)
        return
    postgres = Postgres(dsn)
    yield Bench(
        PostgresStripeInvoices(postgres),
        PostgresInvoiceBooks(postgres),
        PostgresStripeIntents(postgres),
    )
    await postgres.close()


async def test_each_revision_is_found_until_it_is_noted(bench: Bench) -> None:
    """By number, of periods from an instant on, for each account by itself."""
    await bench.issue(ACME, 1)
    await bench.issue(OTHER, 1, Window(NOON_US - DAY_US, NOON_US))
    await bench.issue(ACME, 2)
    assert await bench.issued() == ["acme/1", "other/1", "acme/2"]
    assert await bench.issued(since_us=NOON_US) == ["acme/1", "acme/2"]
    assert await bench.issued(count=1) == ["acme/1"]
    first, second, _ = await bench.invoices.issued("stripe", 0, 0, 9)
    assert first == IssuedRevision(first.number, ACME, NOON_US, 1)
    assert await bench.issued(after=second.number) == ["acme/2"]
    for _ in range(2):
        await bench.invoices.note("stripe", first.number, 3)
    assert await bench.issued() == ["other/1", "acme/2"]
    assert len(await bench.invoices.issued("another", 0, 0, 9)) == 3


async def test_what_was_told_is_of_earlier_revisions(bench: Bench) -> None:
    """By line and currency, of the meters asked about."""
    made = await bench.issue(ACME, 1)
    lines = [
        ChargeLine(*(ACME, "a", METER, 100, "EUR", "A"), PERIOD.start_us, PERIOD.end_us),
        ChargeLine(*(ACME, "b", NO_METER, 50, "EUR", "B"), PERIOD.start_us, PERIOD.end_us),
    ]
    first = [item_intent("stripe", "cus_1", line, made, 1) for line in lines]
    second = [item_intent("stripe", "cus_1", lines[0], made, 2)]
    assert len(await bench.intents.intend([*first, *second], NOON_US)) == 3
    assert await bench.intents.intend([*first, *second], NOON_US) == []

    async def told(revision: int, *meters: MeterName) -> dict[tuple[str, str], int]:
        of = IssuedRevision(1, ACME, NOON_US, revision)
        return dict(await bench.invoices.told("stripe", of, meters))

    assert await told(1, METER) == {}
    assert await told(2, METER, NO_METER) == {("a", "EUR"): 100, ("b", "EUR"): 50}
    assert await told(3, METER) == {("a", "EUR"): 200}
    other = IssuedRevision(1, OTHER, NOON_US, 3)
    assert await bench.invoices.told("stripe", other, [METER]) == {}
