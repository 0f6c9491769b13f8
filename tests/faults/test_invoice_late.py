"""An issued invoice stays as it is: late usage, corrections, replays and new prices come after it.

Events are stored and periods closed as in an installation; invoices are worked out of the same
Postgres, and read back as they were written.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.ids import EventId
from tallygate.domain.invoice import Invoice
from tallygate.domain.invoice_document import to_bytes
from tallygate.domain.period import GRACE_US
from tallygate.domain.window import HOUR_US, Window
from tallygate.flow.invoice import Invoicing
from tallygate.ports import CatalogChange
from tallygate.ports.billing import StoredInvoice
from tallygate.wiring.invoicing import invoicing_of
from tests.periods.world import (
    ACME,
    DECEMBER,
    EXACT,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PeriodWorld,
    period_world,
)
from tests.servers import connection

IN_OCTOBER: Final = Window(OCTOBER, NOVEMBER)
IN_NOVEMBER: Final = Window(NOVEMBER, DECEMBER)
BOOK: Final = """\
version: 1
meters:
  requests: {{}}
  exact: {{late_policy: correct}}
plans:
  free:
    prices:
      - {{id: requests, model: per_unit, meter: requests, amount: {amount}}}
      - {{id: exact, model: per_unit, meter: exact, amount: 1}}
tenants:
  acme: {{plan: free}}
"""


@dataclass(slots=True)
class Bills:
    """A ledger with prices, and what invoices it."""

    periods: PeriodWorld
    invoicing: Invoicing

    async def price(self, amount: str, at_us: int) -> None:
        """Apply a price of requests from an instant on."""
        parsed = parse(BOOK.format(amount=amount))
        newest = await self.periods.catalogs.newest()
        change = CatalogChange(parsed.catalog, parsed.tenants, "", at_us)
        await self.periods.catalogs.write(change, newest.version)

    async def issue(self, period: Window) -> StoredInvoice:
        """Issue a period's invoice."""
        return await self.invoicing.issue(ACME, period, reason="month end", actor="ada")

    async def first(self) -> tuple[bytes, StoredInvoice]:
        """Return October's first revision, as it is read back."""
        stored = await self.invoicing.stored(ACME, IN_OCTOBER, 1)
        return to_bytes(stored.invoice), stored


def owed(invoice: Invoice) -> dict[str, Decimal]:
    """Return amounts by price, late usage of other periods apart."""
    found: dict[str, Decimal] = {}
    for line in invoice.lines:
        name = line.price_id + (" late" if line.adjusts is not None else "")
        found[name] = found.get(name, Decimal(0)) + line.amount
    return found


@pytest.fixture
async def bills(postgres_dsn: str) -> AsyncIterator[Bills]:
    """October is closed and invoiced: ten requests at 2, four exact at 1."""
    postgres = Postgres(postgres_dsn)
    async with period_world(postgres_dsn) as periods:
        found = Bills(periods, invoicing_of(postgres, periods.clock))
        await found.price("2", OCTOBER - HOUR_US)
        await periods.store(
            periods.event(MID_OCTOBER, 10), periods.event(MID_OCTOBER, 4, meter=EXACT)
        )
        await periods.run(NOVEMBER)
        await periods.run(NOVEMBER + GRACE_US)
        assert owed((await found.issue(IN_OCTOBER)).invoice) == {"requests": 20, "exact": 4}
        yield found
    await postgres.close()


async def test_late_usage_leaves_the_issued_invoice(bills: Bills) -> None:
    """By policy it is on the next period's invoice, or on a further revision; once, either way."""
    before = await bills.first()
    late = [
        bills.periods.event(MID_OCTOBER, 3),
        bills.periods.event(MID_OCTOBER, 2, meter=EXACT),
        bills.periods.event(MID_OCTOBER, -1, refund_of=EventId("event-000001")),
        bills.periods.event(MID_NOVEMBER, 5),
    ]
    for _ in range(2):
        await bills.periods.store(*late)
        await bills.periods.run(NOVEMBER + 2 * GRACE_US)
    again = [await bills.issue(IN_OCTOBER) for _ in range(3)]
    assert [each.revision for each in again] == [2, 2, 2]
    assert owed(again[0].invoice) == {"requests": 20, "exact": 6}
    assert await bills.first() == before
    await bills.periods.run(DECEMBER + GRACE_US)
    november = await bills.issue(IN_NOVEMBER)
    assert owed(november.invoice) == {"requests late": 4, "requests": 10}
    assert (await bills.issue(IN_NOVEMBER)).revision == 1


async def test_a_replay_bills_nothing_twice(bills: Bills) -> None:
    """A closed month's events, handed in anew, change neither its invoice nor the next one."""
    before = await bills.first()
    again = [
        bills.periods.event(MID_OCTOBER, 10, event_id=EventId("event-000001")),
        bills.periods.event(MID_OCTOBER, 4, meter=EXACT, event_id=EventId("event-000002")),
    ]
    for _ in range(3):
        await bills.periods.store(*again)
        await bills.periods.run(NOVEMBER + 2 * GRACE_US)
    assert (await bills.issue(IN_OCTOBER)).revision == 1
    assert await bills.first() == before
    await bills.periods.run(DECEMBER + GRACE_US)
    assert owed((await bills.issue(IN_NOVEMBER)).invoice) == {}


async def test_new_prices_are_of_their_own_time(bills: Bills) -> None:
    """What comes late for a month is billed at that month's price, whatever it costs by now."""
    before = await bills.first()
    await bills.price("7", NOVEMBER + 2 * GRACE_US)
    bills.periods.clock.us = NOVEMBER + 2 * GRACE_US
    await bills.periods.store(
        bills.periods.event(MID_OCTOBER, 3), bills.periods.event(MID_NOVEMBER, 5)
    )
    await bills.periods.run(DECEMBER + GRACE_US)
    assert owed((await bills.issue(IN_NOVEMBER)).invoice) == {"requests late": 6, "requests": 35}
    assert (await bills.issue(IN_OCTOBER)).revision == 1
    assert await bills.first() == before


async def test_nobody_edits_an_issued_invoice(bills: Bills, postgres_dsn: str) -> None:
    """Not even who owns the tables, as long as the trigger is there."""
    before = await bills.first()
    async with connection(postgres_dsn) as admin:
        for statement in (
            "update tallygate.invoice set total = 0",
            "delete from tallygate.invoice",
            "truncate tallygate.invoice",
        ):
            with pytest.raises(Exception, match="invoice"):
                await admin.execute(statement)
    assert await bills.first() == before
