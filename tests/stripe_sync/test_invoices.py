"""Issued invoices become invoice items, each line once, and a revision's differences alone."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Final

import pytest

from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.stripe_invoices import PostgresStripeInvoices
from tallygate.domain.catalog import Aggregation, Tenant
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, PlanName
from tallygate.domain.invoice import NO_PRICE, Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.stripe_invoice import Itemized, items_of, smallest
from tallygate.domain.stripe_sync import StripeAccount, StripeSync, Way
from tallygate.domain.window import DAY_US, Window
from tallygate.flow.stripe_invoice import ItemParts, StripeItems
from tallygate.ports.billing import Issuing
from tallygate_fake_stripe import Fault, FaultKind
from tests.servers import connection
from tests.stripe_world import (
    CUSTOMER,
    METER,
    MIDNIGHT_US,
    TENANT,
    StripeWorld,
    stripe_world,
)

SYNC: Final = StripeSync(Way.INVOICE_ITEMS, since_us=MIDNIGHT_US - 30 * DAY_US)
PERIOD: Final = Window(MIDNIGHT_US - 30 * DAY_US, MIDNIGHT_US)
PLAN: Final = PlanName("start")
ITEMS: Final = "/v1/invoiceitems"


def usage(
    amount: str, price: str = "calls", meter: MeterName = METER, region: str = ""
) -> InvoiceLine:
    """Return a line for usage."""
    return InvoiceLine(
        *(0, LineKind.USAGE, PLAN, PERIOD, Decimal(amount), Decimal(amount), PriceId(price)),
        model=PriceModel.PER_UNIT,
        selection=Selection(meter, Aggregation.SUM),
        group=(("region", region),) if region else (),
        description=price.title(),
    )


def fee(amount: str) -> InvoiceLine:
    """Return a line that is of no meter."""
    return InvoiceLine(
        *(0, LineKind.FEE, PLAN, PERIOD, Decimal(amount), Decimal(amount), PriceId("base")),
        model=PriceModel.FLAT,
    )


def off(amount: str, price: PriceId = NO_PRICE) -> InvoiceLine:
    """Return a discount: of a price for usage, or of the plan."""
    selection = Selection(METER, Aggregation.SUM) if price else None
    return InvoiceLine(
        *(0, LineKind.DISCOUNT, PLAN, PERIOD, Decimal(amount), Decimal(amount), price),
        model=PriceModel.PER_UNIT if price else None,
        selection=selection,
    )


def invoice(*lines: InvoiceLine, currency: str = "EUR", period: Window = PERIOD) -> Invoice:
    """Return an invoice of these lines."""
    total = sum((each.amount for each in lines), Decimal(0))
    return Invoice(TENANT, period, currency, lines, total, Decimal(0), Decimal(0), total)


@dataclass
class Told:
    """What the step told of itself."""

    unsent: list[int]

    def planned(self, _: str, kind: str, count: int) -> None:
        """Only items are planned here."""
        assert kind == "item"
        assert count

    def unsendable(self, _: str, number: int, reason: str) -> None:
        """Keep it."""
        assert "no whole number" in reason
        self.unsent.append(number)


@dataclass
class Billing:
    """A world in which a meter's lines are items."""

    world: StripeWorld
    books: PostgresInvoiceBooks
    step: StripeItems
    told: Told

    async def issue(self, *lines: InvoiceLine, **fields: object) -> None:
        """Issue the next revision of the period's invoice."""
        made = invoice(*lines, **fields)  # type: ignore[arg-type]  # by name
        newest = await self.books.newest(TENANT)
        assert await self.books.write(Issuing(made, "month end", "ann"), newest)

    async def sync(self) -> int:
        """Write items and send them; return how many are new."""
        counts = await self.step.run_once()
        await self.world.send(2)
        return counts.items

    def another(self) -> StripeItems:
        """Return the step as another process has it."""
        return StripeItems(self.step.destination, self.step.parts)

    async def items(self) -> list[tuple[int, str, str]]:
        """Return the customer's items at Stripe."""
        client = self.world.client().stripe()
        found = await client.v1.invoice_items.list_async(
            {"customer": CUSTOMER, "limit": 100}, {"api_key": self.world.key}
        )
        return sorted((each.amount, each.currency, each.description or "") for each in found.data)


@asynccontextmanager
async def billing(
    dsn: str, *, fees: bool = False, sync: StripeSync = SYNC
) -> AsyncIterator[Billing]:
    """Lend it."""
    async with stripe_world(dsn) as world:
        await world.declare(sync, account=StripeAccount(fees=fees))
        books, told = PostgresInvoiceBooks(world.postgres), Told([])
        parts = ItemParts(
            *(PostgresStripeInvoices(world.postgres), books, world.intents, world.catalogs),
            *(world.clock, told),
        )
        yield Billing(world, books, StripeItems("stripe", parts), told)


async def test_lines_become_items(postgres_dsn: str) -> None:
    """Each of the meter's lines is one, with what it is for, and its period; others stay."""
    async with billing(postgres_dsn) as bill:
        other = usage("9", meter=MeterName("other"))
        await bill.issue(usage("12.50"), usage("3", region="eu"), off("-1.25", PriceId("calls")))
        assert await bill.sync() == 3
        await bill.issue(
            usage("12.50"), usage("3", region="eu"), off("-1.25", PriceId("calls")), other, fee("5")
        )
        assert await bill.sync() == 0
        assert (await bill.another().run_once()).items == 0
        assert await bill.items() == [
            (-125, "eur", "Discount on calls"),
            (300, "eur", "Calls (region=eu)"),
            (1250, "eur", "Calls"),
        ]
        client = bill.world.client().stripe()
        (item, *_) = (
            await client.v1.invoice_items.list_async(
                {"customer": CUSTOMER}, {"api_key": bill.world.key}
            )
        ).data
        assert (item.period.start, item.period.end) == (
            PERIOD.start_us // 1_000_000,
            PERIOD.end_us // 1_000_000,
        )
        assert await bill.world.states() == {"delivered": 3}


async def test_a_revision_is_its_differences(postgres_dsn: str) -> None:
    """What changed, came or went is told with its sign; what is as before is not told again."""
    async with billing(postgres_dsn, fees=True) as bill:
        await bill.issue(usage("12.50"), usage("3", region="eu"), fee("10"), off("-1"))
        assert await bill.sync() == 4
        await bill.issue(usage("12.75"), usage("2", region="us"), fee("10"), off("-1"))
        assert await bill.sync() == 3
        await bill.issue(usage("12.50"), usage("2", region="us"), fee("10"))
        assert await bill.sync() == 2
        found = await bill.items()
        assert sum(amount for amount, _, _ in found) == 1_250 + 200 + 1_000
        assert (-25, "eur", "Calls (changed by revision 3)") in found
        assert (-300, "eur", "no longer due (changed by revision 2)") in found


async def test_revisions_issued_together_add_up(postgres_dsn: str) -> None:
    """However many there are, and however many are at work, the newest is what counts."""
    async with billing(postgres_dsn) as bill:
        for amount in ("1", "7", "5", "5.50"):
            await bill.issue(usage(amount), fee(amount))
        first, second = bill.another(), bill.another()
        for _ in range(2):
            await first.run_once()
            await second.run_once()
        async with connection(bill.world.dsn) as admin:
            await admin.execute("set session_replication_role = replica")
            await admin.execute("delete from tallygate.stripe_invoice")
        assert await bill.sync() == 0
        assert [amount for amount, _, _ in await bill.items()] == [-200, 50, 100, 600]


async def test_an_item_goes_out_once(postgres_dsn: str) -> None:
    """An answer that was lost, and a database that is behind, make no second item."""
    async with billing(postgres_dsn) as bill:
        await bill.issue(usage("4"))
        bill.world.stripe.faults.add(Fault(FaultKind.DROP_AFTER, path=ITEMS, count=1))
        await bill.sync()
        bill.world.pass_s(120)
        await bill.world.send(2)
        assert [amount for amount, _, _ in await bill.items()] == [400]
        assert await bill.world.states() == {"delivered": 1}


async def test_what_is_not_told(postgres_dsn: str) -> None:
    """Periods of before `since`, and lines of meters without it, which are given by hand."""
    early = Window(PERIOD.start_us - 30 * DAY_US, PERIOD.start_us)
    async with billing(postgres_dsn) as bill:
        await bill.issue(usage("4"), period=early)
        assert await bill.sync() == 0
    async with billing(postgres_dsn, sync=StripeSync(Way.INVOICE_ITEMS)) as bill:
        await bill.issue(usage("4"))
        assert await bill.sync() == 0


async def test_a_customer_may_come_later(postgres_dsn: str) -> None:
    """Invoices wait for the tenant to have a customer."""
    async with billing(postgres_dsn) as bill:
        await bill.world.declare(SYNC, [Tenant(TENANT, PLAN)])
        await bill.issue(usage("4"))
        assert await bill.sync() == 0
        await bill.world.declare(SYNC)
        assert await bill.sync() == 1


async def test_an_amount_without_a_unit_is_left_to_people(postgres_dsn: str) -> None:
    """It is told as such, and the next revision is told whole."""
    async with billing(postgres_dsn) as bill:
        await bill.issue(usage("4.20"), currency="MGA")
        assert await bill.sync() == 0
        assert bill.told.unsent == [1]
        await bill.issue(usage("4"), currency="MGA")
        assert await bill.sync() == 1
        assert bill.told.unsent == [1]


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [("12.50", "EUR", 1250), ("12", "JPY", 12), ("1.250", "KWD", 1250), ("12", "ISK", 1200)],
)
def test_units_are_those_of_stripe(amount: str, currency: str, units: int) -> None:
    """Cents where a currency has them, or has had them."""
    assert smallest(Decimal(amount), currency) == units
    with pytest.raises(InvalidField):
        smallest(Decimal("0.0001"), currency)


@pytest.mark.parametrize("seed", range(20))
def test_items_add_up_to_the_newest_revision(seed: int) -> None:
    """Of any revisions, line by line; the same one again adds nothing."""
    chance = Random(seed)
    which = Itemized(frozenset({METER}), fees=chance.random() < 0.5)
    told: dict[tuple[str, str], int] = {}
    for revision in range(1, 8):
        lines = [
            usage(f"{chance.randint(-500, 500) / Decimal(100)}", f"p{number}", region=region)
            for number in range(chance.randint(0, 4))
            for region in chance.sample(["eu", "us", ""], chance.randint(0, 3))
        ]
        lines += [fee(f"{chance.randint(0, 9)}") for _ in range(chance.randint(0, 2))]
        made = invoice(*lines, currency=chance.choice(["EUR", "USD"]))
        before: Mapping[tuple[str, str], int] = dict(told)
        for each in items_of(made, revision, which, before):
            key = (each.line_id, each.currency)
            told[key] = told.get(key, 0) + each.amount
        wanted = sum(
            (each.amount for each in made.lines if which.fees or each.selection), Decimal(0)
        )
        sums = {"EUR": 0, "USD": 0}
        for (_, currency), amount in told.items():
            sums[currency] += amount
        assert sums[made.currency] == wanted * 100
        assert sum(abs(amount) for amount in sums.values()) == abs(wanted * 100)
        assert [*items_of(made, revision, which, told)] == []
