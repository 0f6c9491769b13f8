"""Invoices as they are worked out and issued, over fakes: what is read, what is written, races."""

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.domain.catalog import Aggregation, Catalog, Meter, Tenant
from tallygate.domain.credit import NEVER_US, CreditGrant, GrantId
from tallygate.domain.errors import BackendUnavailable, InvalidField, NotFound, UnknownTenant
from tallygate.domain.ids import LimitId, TenantId
from tallygate.domain.invoice import Invoice, LineKind
from tallygate.domain.invoice_document import from_bytes, to_bytes
from tallygate.domain.price import CreditTerms, Pay, Terms
from tallygate.domain.window import DAY_US, MINUTE_US, Calendar, Window
from tallygate.flow.invoice import START, InvoiceParts, Invoicing
from tallygate.ports.billing import Issuing, StoredInvoice
from tallygate.testing.billing import (
    FakeBilledUsage,
    FakeExchangeRates,
    FakeInvoiceBooks,
    FakePlanHistory,
)
from tests.rating.parts import ACME, CALLS, EUR, d, fee, plan, price
from tests.usage_events import event

JANUARY = Window(0, 31 * DAY_US)
FEBRUARY = Window(31 * DAY_US, 59 * DAY_US)
PREPAID = LimitId("prepaid")
TERMS = replace(EUR, credit=CreditTerms(d("0.01"), PREPAID))


@dataclass
class Clock:
    """A clock that stands where it is put."""

    at_us: int = FEBRUARY.end_us

    def now_us(self) -> int:
        """Return where it stands."""
        return self.at_us

    def monotonic(self) -> float:
        """Return where it stands, in seconds."""
        return self.at_us / 1e6


class World:
    """Everything that invoices are made of, in memory."""

    def __init__(self) -> None:
        self.usage = FakeBilledUsage()
        self.late = self.usage.late
        self.history = FakePlanHistory()
        self.rates = FakeExchangeRates()
        self.books = FakeInvoiceBooks()
        self.clock = Clock()
        self.invoicing = Invoicing(
            InvoiceParts(
                *(self.usage, self.usage, self.history, self.rates, self.books, self.late),
                self.clock,
            )
        )

    def apply(self, at_us: int, *prices: object, terms: Terms = EUR, **tenant: object) -> None:
        """Have a plan of these prices, and the tenant on it, from an instant on."""
        made = plan(*prices, terms=terms)  # type: ignore[arg-type]
        version = len(self.history.catalogs) + 1
        meters = {CALLS: Meter(CALLS, Aggregation.SUM)}
        self.history.catalogs.append((at_us, Catalog(version, meters, {made.name: made})))
        values: dict[str, object] = {"currency": "EUR", **tenant}
        on_it = Tenant(ACME, made.name, **values)  # type: ignore[arg-type]
        self.history.tenants.append((at_us, on_it))

    def use(self, at_us: int, amount: int) -> None:
        """Have calls been made."""
        number = len(self.usage.stored) + 1
        self.usage.stored.append(event(number, meter=CALLS, event_time_us=at_us, amount=amount))

    def grant(self, amount: int) -> None:
        """Have credits been granted."""
        self.books.granted.append(
            CreditGrant(ACME, PREPAID, GrantId("gift"), 1, amount, amount, 0, 0, NEVER_US, 0)
        )

    async def issue(self, period: Window) -> StoredInvoice:
        """Issue a period's invoice."""
        return await self.invoicing.issue(ACME, period, reason="why", actor="who")


@pytest.fixture
def world() -> World:
    """An empty world, at the end of February 1970."""
    return World()


async def test_each_event_is_rated_by_the_plan_of_its_time(world: World) -> None:
    """A change in the middle of a minute parts the events on both sides of it."""
    turn = 10 * DAY_US + MINUTE_US // 2
    world.apply(-5, price(amount=d("1")))
    world.apply(turn, price(amount=d("2")))
    world.use(turn - 1, 3)
    world.use(turn, 5)
    invoice = await world.invoicing.preview(ACME, JANUARY)
    assert [line.amount for line in invoice.lines] == [3, 10]
    assert [line.segment for line in invoice.lines] == [
        Window(0, turn),
        Window(turn, JANUARY.end_us),
    ]


async def test_a_preview_writes_nothing(world: World) -> None:
    """However often it is asked for, there is no invoice; usage changes it."""
    world.apply(-5, price(amount=d("1")))
    world.use(1, 1)
    assert (await world.invoicing.preview(ACME, JANUARY)).total == 1
    world.use(2, 1)
    assert (await world.invoicing.preview(ACME, JANUARY)).total == 2
    assert world.books.issued == []
    with pytest.raises(NotFound):
        await world.invoicing.stored(ACME, JANUARY, 0)


async def test_late_usage_is_another_revision(world: World) -> None:
    """The first one stays as it was; without a change, none is written."""
    world.apply(-5, price(amount=d("1")))
    world.use(1, 1)
    first = await world.issue(JANUARY)
    assert await world.issue(JANUARY) == first
    world.use(2, 1)
    second = await world.issue(JANUARY)
    assert second.revision == 2
    assert second.invoice.total == 2
    assert await world.invoicing.stored(ACME, JANUARY, 1) == first


async def test_a_period_that_goes_on_is_not_issued(world: World) -> None:
    """Only a preview may be of the time to come."""
    world.apply(-5, price(amount=d("1")))
    world.clock.at_us = JANUARY.end_us - 1
    with pytest.raises(InvalidField) as caught:
        await world.issue(JANUARY)
    assert caught.value.field == "period"
    assert (await world.invoicing.preview(ACME, JANUARY)).total == 0


async def test_who_is_not_known_has_no_invoice(world: World) -> None:
    """Neither an unknown tenant nor one that came later owes anything."""
    with pytest.raises(UnknownTenant):
        await world.invoicing.current(ACME)
    world.apply(JANUARY.end_us, price(amount=d("1")))
    with pytest.raises(UnknownTenant):
        await world.invoicing.preview(ACME, JANUARY)
    with pytest.raises(UnknownTenant):
        await world.invoicing.calendar(TenantId("other"))


async def test_the_current_period_is_the_tenants_own(world: World) -> None:
    """It follows the anchor and the zone that the tenant has now."""
    calendar = Calendar("UTC", 14 * DAY_US)
    world.apply(-5, price(amount=d("1")), calendar=calendar)
    world.clock.at_us = 40 * DAY_US
    assert await world.invoicing.current(ACME) == Window(14 * DAY_US, 45 * DAY_US)


async def test_fees_in_advance_add_up_over_the_periods(world: World) -> None:
    """Whatever changes, all invoices together charge each plan for its time, and one fee ahead."""
    ahead = fee("31", pay=Pay.ADVANCE)
    world.apply(-5, ahead)
    world.apply(10 * DAY_US, replace(ahead, amount=d("62")))
    january = await world.invoicing.preview(ACME, JANUARY)
    february = await world.invoicing.preview(ACME, FEBRUARY)
    # What December's invoice has charged for January is 31.
    assert january.total == -31 + 10 + 42 + 62
    assert february.total == 62


async def test_two_periods_burn_a_credit_once(world: World) -> None:
    """Invoices that are issued at once wait for each other: the second sees what the first took."""
    world.apply(-5, price(amount=d("1"), in_credits=True), terms=TERMS)
    world.grant(100)
    world.use(1, 80)
    world.use(JANUARY.end_us + 1, 80)
    both = await asyncio.gather(world.issue(JANUARY), world.issue(FEBRUARY))
    burned = [
        line.burn.units for stored in both for line in stored.invoice.lines if line.burn is not None
    ]
    assert sorted(burned) == [20, 80]
    assert sum(stored.invoice.total for stored in both) == d("0.60")
    # Each finds its own credits again.
    assert await world.issue(JANUARY) == both[0]
    assert await world.issue(FEBRUARY) == both[1]


async def test_it_gives_up_where_others_never_stop(world: World) -> None:
    """Who never finds what was read unchanged is told to come back."""

    class Busy(FakeInvoiceBooks):
        """Books of which another is always first."""

        async def write(self, issuing: Issuing, newest: int) -> StoredInvoice | None:
            """Say that another was."""
            return None

    world.apply(-5, price(amount=d("1")))
    parts = InvoiceParts(
        *(world.usage, world.usage, world.history, world.rates, Busy(), world.late),
        world.clock,
    )
    with pytest.raises(BackendUnavailable):
        await Invoicing(parts).issue(ACME, JANUARY, reason="", actor="")


async def test_evidence_leads_to_events(world: World) -> None:
    """A line's rollups and events make up its quantity; a page says where the next begins."""
    world.apply(-5, price(amount=d("1")), fee("1"))
    for number in range(5):
        world.use(number * DAY_US + number, 2)
    invoice = await world.invoicing.preview(ACME, JANUARY)
    usage, flat = invoice.lines
    first = await world.invoicing.evidence(invoice, usage, START, 3)
    assert [each.sum for each in first.buckets] == [2, 2, 2]
    assert first.more_buckets
    assert first.more_from is not None
    rest = await world.invoicing.evidence(invoice, usage, first.more_from, 3)
    events = [*first.events, *rest.events]
    assert sum(each.amount for each in events) == usage.quantity
    assert (len(events), rest.more_from) == (5, None)
    with pytest.raises(InvalidField):
        await world.invoicing.evidence(invoice, flat, START, 3)


async def test_documents_read_back_equal(world: World) -> None:
    """Everything that an invoice says is in its document, whose bytes do not vary."""
    minimum = price(amount=d("0.333"), in_credits=True, minimum=d("9"), per="region")
    world.apply(-5, fee("10"), minimum, terms=replace(TERMS, minimum=d("7")))
    world.apply(DAY_US * 3, fee("11"), minimum, terms=TERMS)
    world.grant(5)
    world.use(1, 80)
    world.use(4 * DAY_US, 17)
    invoice = await world.invoicing.preview(ACME, JANUARY)
    assert {line.kind for line in invoice.lines} >= {*LineKind} - {LineKind.DISCOUNT}
    document = to_bytes(invoice)
    again: Invoice = from_bytes(document)
    assert again == invoice
    assert to_bytes(again) == document
    assert sum(line.amount for line in again.lines) == Decimal(again.total)
