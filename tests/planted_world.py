"""A month that is over, of which every step to money has the same units: closed, sent, invoiced.

Owns what plants an error in one step, and reconciles all of them on the clock of `StripeWorld`.
Guarantees: what is planted is one row, changed, added or taken away behind everybody's back.
Refuses to know which step is to be blamed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.period_chain import PostgresPeriodChains
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodReader
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads
from tallygate.adapters.postgres.reconcile_frozen import PostgresFrozenReads
from tallygate.adapters.postgres.reconcile_money import PostgresMoneyReads
from tallygate.adapters.stripe.api import StripeUsage
from tallygate.domain.catalog import Aggregation, Catalog, Destination, Tenant
from tallygate.domain.ids import PlanName
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.period import GRACE_US
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.reconcile import Reconciled, Step, Verdict
from tallygate.domain.window import MINUTE_US, SECOND_US, Calendar, Period, Window, window_at
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts, ToldFigures
from tallygate.flow.reconcile_frozen import FrozenFigures
from tallygate.flow.reconcile_money import MoneyFigures
from tallygate.ports import CatalogChange
from tallygate.ports.billing import Issuing
from tallygate.ports.repair import Outcome
from tallygate.ports.stripe import StripeApi
from tallygate.wiring.repairing import repairs_of
from tests.builders import SHARDS
from tests.periods.world import SetArrivals
from tests.servers import connection
from tests.stripe_world import CUSTOMER, EVENT, METER, START_US, TENANT, StripeWorld, stripe_world

JANUARY: Final = window_at(Period.BILLING_PERIOD, Calendar(), START_US)
USED: Final = 12
HOOK: Final = "hook"


@dataclass
class FakeSums:
    """The `StripeSums` port over the fake Stripe's own interface."""

    api: StripeApi

    async def asks(self, destination: str) -> bool:
        """Say that the account can be asked."""
        return True

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what Stripe has of a customer's meter."""
        return await self.api.summed(event_name, customer, window.start_us, window.end_us)


@dataclass
class PlantedWorld:
    """All steps of January, and what holds them against each other."""

    world: StripeWorld
    catalogs: PostgresCatalogStore = field(init=False)
    closing: ClosePeriods = field(init=False)
    reconcile: Reconcile = field(init=False)

    def __post_init__(self) -> None:
        """Put closing and reconciliation together."""
        postgres, clock = self.world.postgres, self.world.clock
        self.catalogs = PostgresCatalogStore(postgres)
        self.closing = ClosePeriods(
            ClosingParts(
                PostgresPeriodLedger(postgres),
                PostgresPeriodReader(postgres),
                self.catalogs,
                SetArrivals(),
                clock,
                PostgresPeriodFolds(postgres),
            ),
            ClosingOptions("one", correction_delay_s=0.0),
        )
        reads = PostgresReconcileReads(postgres)
        sums = FakeSums(StripeUsage(self.world.client(), clock))
        sources = (
            MoneyFigures(PostgresMoneyReads(postgres), self.catalogs, clock, sums),
            ToldFigures(reads, self.catalogs, clock),
            FrozenFigures(PostgresFrozenReads(postgres), self.catalogs, clock),
            LedgerFigures(reads, self.catalogs, clock),
        )
        chains = PostgresPeriodChains(postgres)
        self.reconcile = Reconcile(ReconcileParts(sources, self.catalogs, clock, no_wait, chains))

    async def begin(self) -> None:
        """Declare a tenant, its meter, and who wants to be told."""
        world = self.world
        known = await world.catalogs.effective(START_US)
        hook = Destination(HOOK, "webhook", "https://example.com", ("usage.batch",), "SECRET")
        catalog = Catalog(meters=known.meters, destinations=(*known.destinations, hook))
        tenant = Tenant(TENANT, PlanName("p"), stripe_customer_id=CUSTOMER)
        await self.catalogs.write(CatalogChange(catalog, (tenant,), "", 1), 0)
        # As if it had been so all the time: usage of January was to be told.
        await self.edit("update tallygate.catalog_version set created_at = '2025-12-01'")

    async def use(self, *amounts: int) -> None:
        """Use something in each of the next minutes, store and deliver it."""
        at_us = self.world.clock.now_us()
        for number, amount in enumerate(amounts, 1):
            await self.world.use(amount, at_us + number * MINUTE_US)
        await self.deliver()

    async def deliver(self) -> int:
        """Have the destination take what waits; return how many messages."""
        outbox = PostgresOutbox(self.world.postgres)
        return await outbox.delivered(await outbox.claim(HOOK, 100, 60_000))

    async def settle(self) -> None:
        """Send what waits, and let Stripe sum it up."""
        await self.world.send()
        self.world.pass_s(2 * 3_600)

    async def end(self) -> None:
        """Let January pass and be closed, and invoice it."""
        self.world.pass_s((JANUARY.end_us - self.world.clock.now_us()) // SECOND_US + 60)
        await self.close()
        self.world.pass_s(GRACE_US // SECOND_US)
        await self.close()
        await self.invoice(USED)

    async def close(self) -> None:
        """Do what is due of periods."""
        while (await self.closing.run_once()).more:
            pass

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

    async def edit(self, *statements: str) -> None:
        """Do to tables what nobody may."""
        async with connection(self.world.dsn) as admin:
            await admin.execute("set session_replication_role = replica")
            for each in statements:
                await admin.execute(each)

    async def tell(self, value: int) -> None:
        """Have somebody else tell Stripe of usage, or take some back."""
        api = self.world.client().stripe()
        await api.v1.billing.meter_events.create_async(
            {
                "event_name": EVENT,
                "payload": {"stripe_customer_id": CUSTOMER, "value": str(value)},
                "timestamp": START_US // SECOND_US,
            },
            {"api_key": self.world.key},
        )
        self.world.pass_s(600)

    async def repair(self, *, apply: bool = True) -> list[tuple[Step, Outcome]]:
        """Carry out what a reconciliation proposes, or say what would be done."""
        repairs = repairs_of(self.world.postgres, self.world.clock, SHARDS)
        found = await repairs.run([await self.result()], apply=apply)
        return [(each.repair.step, each.outcome) for each in found]

    async def result(self) -> Reconciled:
        """Reconcile January."""
        (found,) = await self.reconcile.of_period(TENANT, JANUARY)
        return found

    async def blamed(self) -> Sequence[tuple[Step, str, int]]:
        """Return the steps at which something began, each with its units too many."""
        found = await self.result()
        assert (found.verdict is Verdict.DRIFT) == bool(found.drifts), found
        return [(each.step, each.name, int(each.units)) for each in found.found]


async def no_wait(_seconds: float) -> None:
    """Go on at once."""


@asynccontextmanager
async def planted_world(dsn: str, *, ended: bool = True) -> AsyncIterator[PlantedWorld]:
    """Lend a January of two events, of which every step has 12 units."""
    async with stripe_world(dsn) as world:
        made = PlantedWorld(world)
        await made.begin()
        await made.use(5, 7)
        await made.close()
        world.pass_s(6 * 3_600)
        await world.sync()
        assert await world.states() == {"delivered": 1}
        world.pass_s(2 * 3_600)
        if ended:
            await made.end()
        yield made
