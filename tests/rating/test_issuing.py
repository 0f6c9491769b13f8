"""Invoices of periods as they are closed: what is issued, what is held, what late usage adds."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.invoice_queue import PostgresInvoiceQueue
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.commands import invoice_links
from tallygate.commands.invoice_links import links_of
from tallygate.domain import invoice_words as words
from tallygate.domain.catalog import Catalog, Destination, Plan, Tenant
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.invoice import LineKind
from tallygate.domain.period import GRACE_US, PeriodKey
from tallygate.domain.price import Price, PriceId, PriceModel, Terms
from tallygate.domain.trail import ASKED, DONE
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.flow.invoice import START, Invoicing
from tallygate.flow.issue_invoices import (
    RETRY_MIN_US,
    Drifts,
    IssuedCounts,
    IssueInvoices,
    IssuingParts,
    ReconciledFirst,
)
from tallygate.flow.reconcile_invoicing import SilentInvoicing
from tallygate.flow.trail import Trail
from tallygate.ports import CatalogChange
from tallygate.ports.billing import Issuing, StoredInvoice
from tallygate.ports.invoice_due import Withheld
from tallygate.ports.period import PeriodAsked
from tallygate.ports.reconcile_invoicing import InvoicedPeriod
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl
from tallygate.testing.trail import FakeTrailLog
from tallygate.wiring.invoicing import invoicing_of
from tallygate.wiring.reconciling import around_invoices, reconciling_of
from tests.periods.world import (
    ACME,
    DECEMBER,
    EXACT,
    METERS,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    period_world,
)
from tests.rating.parts import d, tiers
from tests.servers import connection
from tests.sql.test_append_only import as_role

OTHER: Final = TenantId("other")
TYPES: Final = ("invoice.issued", "invoice.held")
PRICES: Final = (
    Price(
        *(PriceId("requests"), PriceModel.GRADUATED, REQUESTS),
        tiers=tiers((10, "1", "0"), (None, "0.5", "2")),
    ),
    Price(PriceId("exact"), PriceModel.PER_UNIT, EXACT, amount=d("0.1")),
    Price(PriceId("peak"), PriceModel.PER_UNIT, PEAK, amount=d("3")),
)
OCT, NOV = Window(OCTOBER, NOVEMBER), Window(NOVEMBER, DECEMBER)


@dataclass
class SetDrifts:
    """The `Drifts` that a test sets."""

    found: Sequence[str] = ()

    async def drifts(self, of: InvoicedPeriod) -> Sequence[str]:
        """Return what was set."""
        return self.found


@dataclass
class Desk:
    """What closes periods, and what issues their invoices, on one clock."""

    world: PeriodWorld
    postgres: Postgres
    invoicing: Invoicing
    issuing: IssueInvoices
    log: FakeTrailLog
    drifts: SetDrifts

    async def declare(self, tenant: Tenant, at_us: int = 1) -> None:
        """Have a tenant on a plan of `PRICES` from an instant on."""
        store = PostgresCatalogStore(self.postgres)
        plan = Plan(PlanName("paid"), prices=PRICES, terms=Terms("EUR"))
        hook = Destination("hook", "webhook", "https://example.com", TYPES, "SECRET")
        plans = {plan.name: plan, PlanName("free"): Plan(PlanName("free"))}
        catalog = Catalog(0, dict(METERS), plans, destinations=(hook,))
        newest = await store.newest()
        await store.write(CatalogChange(catalog, (tenant,), "", at_us), newest.version)

    async def close(self, at_us: int) -> IssuedCounts:
        """Let it be then, close what is to be closed, and issue until there is no more."""
        await self.world.run(at_us)
        total = IssuedCounts()
        while True:
            counts = await self.issuing.run_once()
            total = IssuedCounts(
                total.issued + counts.issued,
                total.without + counts.without,
                total.withheld + counts.withheld,
            )
            if not counts.more:
                return total

    async def invoice(self, period: Window, revision: int = 0) -> StoredInvoice:
        """Return a revision of a period's invoice."""
        return await self.invoicing.stored(ACME, period, revision)

    async def due(self) -> list[tuple[Withheld | None, int]]:
        """Return how many periods are to be invoiced, by why they are not."""
        queue = PostgresInvoiceQueue(self.postgres)
        return [(each.held, each.periods) for each in await queue.counts()]


def paid(currency: str = "EUR", name: str = ACME) -> Tenant:
    """Return a tenant that pays."""
    return Tenant(TenantId(name), PlanName("paid"), currency=currency)


@asynccontextmanager
async def desk_on(dsn: str) -> AsyncIterator[Desk]:
    """Lend a desk on an empty ledger."""
    postgres, log, drifts = Postgres(dsn), FakeTrailLog(), SetDrifts()
    try:
        async with period_world(dsn) as world:
            made = invoicing_of(postgres, world.clock)
            reconciled: Drifts = drifts
            queue = PostgresInvoiceQueue(postgres)
            parts = IssuingParts(queue, made, Trail(log), world.clock, reconciled)
            yield Desk(world, postgres, made, IssueInvoices(parts), log, drifts)
    finally:
        await postgres.close()


@pytest.fixture
async def desk(postgres_dsn: str) -> AsyncIterator[Desk]:
    """A desk, a tenant that pays, and its use of October."""
    async with desk_on(postgres_dsn) as made:
        await made.declare(paid())
        world = made.world
        await world.store(
            world.event(MID_OCTOBER, 8),
            world.event(MID_OCTOBER, 10, EXACT),
            world.event(MID_OCTOBER, 4, PEAK),
        )
        await world.run(NOVEMBER - 1)
        yield made


async def test_what_is_closed_is_invoiced(desk: Desk) -> None:
    """Once, with its message and its two entries in the audit log; without plan, there is none."""
    await desk.world.store(desk.world.event(MID_OCTOBER, 5, tenant_id=OTHER))
    counts = await desk.close(NOVEMBER + GRACE_US)
    assert (counts.issued, counts.without, counts.withheld) == (1, 1, 0)
    stored = await desk.invoice(OCT)
    assert (stored.revision, stored.actor, str(stored.invoice.total)) == (1, "control", "21.00")
    assert await desk.due() == []
    ((kind, payload),) = await desk.world.messages()
    assert (kind, '"total":"21.00"' in payload) == ("invoice.issued", True)
    entries = [(row.entry.action, row.entry.tenant_id, row.entry.outcome) for row in desk.log.rows]
    assert entries == [("IssueInvoice", ACME, ASKED), ("IssueInvoice", ACME, DONE)]
    assert await desk.close(NOVEMBER + GRACE_US + HOUR_US) == IssuedCounts()


async def test_late_usage_is_on_the_next_invoice(desk: Desk) -> None:
    """October stays as it was; November has by how much October would have been another."""
    world = desk.world
    await desk.close(NOVEMBER + GRACE_US)
    first = await desk.invoice(OCT)
    late = world.event(MID_OCTOBER + 1, 5)
    await world.store(late, world.event(MID_OCTOBER + 1, 6, PEAK))
    await world.store(world.event(MID_NOVEMBER, 3), world.event(MID_NOVEMBER, 1, PEAK))
    # Asked again, whatever came meanwhile, October says the same.
    assert await desk.invoicing.issue(ACME, OCT, reason="again", actor="ada") == first
    assert (await desk.close(DECEMBER + GRACE_US)).issued == 1
    invoice = (await desk.invoice(NOV)).invoice
    # 8 + 5 are 10 x 1 + 3 x 0.5 + 2, which is 5.50 more than 8; a peak of 6 is 2 more than 4.
    lines = [
        (str(each.price_id), each.adjusts, int(each.quantity), str(each.amount))
        for each in invoice.lines
    ]
    assert lines == [
        ("requests", OCT, 5, "5.50"),
        ("peak", OCT, 2, "6.00"),
        ("requests", None, 3, "3.00"),
        ("peak", None, 1, "3.00"),
    ]
    assert invoice.lines[0].segment == OCT
    evidence = await desk.invoicing.evidence(invoice, invoice.lines[0], START, 9)
    assert [each.event_id for each in evidence.events] == [late.event_id]
    own = await desk.invoicing.evidence(first.invoice, first.invoice.lines[0], START, 9)
    assert sum(each.amount for each in own.events) == 8
    (share,) = await desk.invoicing.shares(ACME, OCT)
    assert (share.billed_us, share.events, share.amount) == (NOVEMBER, 2, d("11.50"))
    assert await desk.invoicing.issue(ACME, NOV, reason="", actor="") == await desk.invoice(NOV)
    links = await links_of(desk.invoicing, first)
    (told,) = invoice_links.document(links)["late_usage"]
    assert (told["events"], told["revision"], told["amount"]) == (2, 1, "11.50")
    (sheet,) = invoice_links.sheets(links, OCT, "UTC")
    assert [row[-1] for row in sheet.rows] == ["11.50 EUR"]
    assert words.whose(invoice.lines[0], "UTC") == (
        "requests, late usage of 2026-10-01 to 2026-11-01"
    )


async def test_a_correction_is_the_next_revision(desk: Desk) -> None:
    """Of the closed period, and of nothing else; the one before stays."""
    world = desk.world
    await desk.close(NOVEMBER + GRACE_US)
    await world.store(world.event(MID_OCTOBER, 20, EXACT))
    assert (await desk.close(NOVEMBER + GRACE_US + HOUR_US)).issued == 1
    first, second = await desk.invoice(OCT, 1), await desk.invoice(OCT)
    assert (second.revision, str(second.invoice.total - first.invoice.total)) == (2, "2.00")
    assert await desk.invoicing.shares(ACME, OCT) == []
    payloads = [payload for _, payload in await world.messages()]
    assert ['"difference":"2.00"' in each for each in payloads] == [False, True]
    links = await links_of(desk.invoicing, second)
    (changed,) = invoice_links.document(links)["changed"]
    assert (changed["price_id"], changed["quantity"], changed["amount"]) == ("exact", "20", "2.00")
    (sheet,) = invoice_links.sheets(links, OCT, "UTC")
    assert [row[-1] for row in sheet.rows] == ["2.00"]


async def test_a_correction_changes_what_late_usage_costs(desk: Desk) -> None:
    """The invoice that has it is worked out anew: all together stay what October costs."""
    world = desk.world
    await desk.close(NOVEMBER + GRACE_US)
    await world.store(world.event(MID_OCTOBER + 1, 4))
    await desk.close(DECEMBER + GRACE_US)
    # 8 + 4 are 10 x 1 + 2 x 0.5 + 2, which is 5 more than 8.
    assert (await desk.invoice(NOV)).invoice.total == d("5.00")
    await world.desk.reopen(
        PeriodAsked(PeriodKey(ACME, OCTOBER), "ada", "an import", world.clock.us), world.clock.us
    )
    await world.store(world.event(MID_OCTOBER + 2, 2))
    counts = await desk.close(DECEMBER + GRACE_US + DAY_US)
    assert counts.issued == 2
    # 8 + 2 are 10 x 1; with 4 more, 10 x 1 + 4 x 0.5 + 2.
    totals = [(await desk.invoice(each)).invoice.total for each in (OCT, NOV)]
    assert totals == [d("23.00"), d("4.00")]


async def test_a_missing_rate_holds_one_tenant(desk: Desk) -> None:
    """It is told once, looked at again, and issued when the rate is there; others go on."""
    world = desk.world
    await desk.declare(paid("USD", OTHER), at_us=2)
    await world.store(world.event(MID_OCTOBER, 5, tenant_id=OTHER))
    counts = await desk.close(NOVEMBER + GRACE_US)
    assert (counts.issued, counts.withheld) == (1, 1)
    assert await desk.due() == [(Withheld.EXCHANGE_RATE, 1)]
    assert await desk.close(NOVEMBER + GRACE_US + RETRY_MIN_US - 1) == IssuedCounts()
    assert (await desk.close(NOVEMBER + GRACE_US + RETRY_MIN_US)).withheld == 1
    kinds = [kind for kind, _ in await world.messages()]
    assert sorted(kinds) == ["invoice.held", "invoice.issued"]
    rate = ExchangeRate("EUR", "USD", OCTOBER, Decimal("1.5"), "a bank")
    await PostgresExchangeRates(desk.postgres).write([rate])
    assert (await desk.close(NOVEMBER + GRACE_US + HOUR_US)).issued == 1
    assert await desk.due() == []


async def test_a_drift_holds_the_invoice(desk: Desk) -> None:
    """What does not have what the ledger has is put right first."""
    desk.drifts.found = ["rollup of requests: 1"]
    assert (await desk.close(NOVEMBER + GRACE_US)).withheld == 1
    ((_, payload),) = await desk.world.messages()
    assert '"reason":"drift","detail":"rollup of requests: 1"' in payload
    assert await PostgresInvoiceBooks(desk.postgres).page(None, 0, 9) == []
    desk.drifts.found = ()
    assert (await desk.close(NOVEMBER + GRACE_US + HOUR_US)).issued == 1


async def test_what_a_hand_has_issued_is_known(desk: Desk) -> None:
    """An invoice that says what closing would have it say is not written again."""
    desk.world.clock.us = NOVEMBER + 1
    await desk.invoicing.issue(ACME, OCT, reason="early", actor="ada")
    counts = await desk.close(NOVEMBER + GRACE_US)
    assert (counts.issued, counts.without) == (0, 1)
    assert (await desk.invoice(OCT)).actor == "ada"


async def test_another_currency_is_converted_once(desk: Desk) -> None:
    """Late usage is rated in the currency of its own period; of its lines, the sum is rounded."""
    world = desk.world
    await desk.close(NOVEMBER + GRACE_US)
    await world.store(
        *(world.event(MID_OCTOBER + n, 1) for n in range(3)), world.event(MID_OCTOBER, 7, PEAK)
    )
    await desk.declare(paid("USD"), at_us=MID_NOVEMBER)
    rate = ExchangeRate("EUR", "USD", OCTOBER, Decimal("1.2345"), "a bank")
    await PostgresExchangeRates(desk.postgres).write([rate])
    await desk.close(DECEMBER + GRACE_US)
    invoice = (await desk.invoice(NOV)).invoice
    late = [each for each in invoice.lines if each.adjusts == OCT]
    # 8 + 3 are 10 x 1 + 1 x 0.5 + 2, 4.50 more; a peak of 7 is 9.00 more.
    assert sum(each.amount for each in late) == round(d("13.50") * d("1.2345"), 2)
    assert {each.rate for each in late} == {d("1.2345")}
    assert {each.kind for each in late} == {LineKind.USAGE}


async def test_usage_from_before_the_first_period_is_billed(desk: Desk) -> None:
    """It is rated by the calendar's period of its time, with the prices of then."""
    world = desk.world
    await desk.close(NOVEMBER + GRACE_US)
    await world.store(world.event(OCTOBER - 5 * DAY_US, 12))
    await desk.close(DECEMBER + GRACE_US)
    invoice = (await desk.invoice(NOV)).invoice
    (line,) = [each for each in invoice.lines if each.adjusts is not None]
    assert (int(line.quantity), str(line.amount)) == (12, "13.00")
    assert line.adjusts == Window(OCTOBER - 30 * DAY_US, OCTOBER)
    evidence = await desk.invoicing.evidence(invoice, line, START, 9)
    assert [each.amount for each in evidence.events] == [12]


async def test_issuing_goes_on_where_it_was(desk: Desk) -> None:
    """Who dies after writing an invoice leaves one that says what the next would write."""
    await desk.world.run(NOVEMBER + GRACE_US)
    invoice = await desk.invoicing.preview(ACME, OCT)
    books = PostgresInvoiceBooks(desk.postgres)
    await books.write(Issuing(invoice, "", "control"), await books.newest(ACME))
    counts = await desk.close(NOVEMBER + GRACE_US)
    assert (counts.issued, counts.without) == (0, 1)
    assert len(await books.page(None, 0, 9)) == 1


async def test_control_reconciles_before_it_issues(desk: Desk) -> None:
    """A rollup with a unit too many holds the invoice, naming the step; mended, it is issued."""
    settings = Settings(postgres_dsn=SecretUrl(desk.world.dsn))
    made = reconciling_of(settings, desk.postgres, None, told=False)
    drifts = ReconciledFirst(around_invoices(made, SilentInvoicing()))
    of = InvoicedPeriod(ACME, OCT, 1)
    assert await drifts.drifts(of) == []
    async with connection(desk.world.dsn) as admin:
        for sign in ("+", "-"):
            await admin.execute(
                f"update tallygate.usage_minute set sum = sum {sign} 1 where meter = 'requests'"
            )
            found = await drifts.drifts(of)
            assert any("rollup" in each and "requests: 1" in each for each in found) is (
                sign == "+"
            )


async def test_the_control_role_may_issue(desk: Desk) -> None:
    """Its rights are enough to take what is due, to hold it, and to issue it."""
    dsn, at_us = desk.world.dsn, NOVEMBER + GRACE_US
    await apply_roles(dsn)
    await desk.world.run(at_us)
    async with desk_on(as_role(dsn, "tallygate_control")) as control:
        control.world.clock.us = at_us
        control.drifts.found = ["rollup of requests: 1"]
        assert (await control.issuing.run_once()).withheld == 1
        control.drifts.found = ()
        control.world.clock.us = at_us + HOUR_US
        assert (await control.issuing.run_once()).issued == 1
        assert await control.due() == []
