"""All that runs beside a ledger in that month, on one clock: the real flows over a real Postgres.

Owns the wiring. Guarantees that time passes only from tick to tick, and that in a tick everything
has its round: ingest, rollups, closing, invoices, Stripe's planner and sender of both accounts.
Refuses to know what should come of it.
"""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.invoice_queue import PostgresInvoiceQueue
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_chain import PostgresPeriodChains
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodDesk, PostgresPeriodReader
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads, PostgresReconcileStore
from tallygate.adapters.postgres.reconcile_frozen import PostgresFrozenReads
from tallygate.adapters.postgres.reconcile_invoicing import PostgresInvoicingStore
from tallygate.adapters.postgres.reconcile_money import PostgresMoneyReads
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.reports import StripeErrorReports
from tallygate.api.stripe_reports import ReportsListener
from tallygate.domain.completeness import Identity
from tallygate.domain.period import Arrived
from tallygate.domain.reconcile import Reconciled
from tallygate.domain.window import SECOND_US, Window
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.ingest import Ingest, IngestParts
from tallygate.flow.issue_invoices import IssueInvoices, IssuingParts, ReconciledFirst
from tallygate.flow.period_orders import OrderParts, PeriodOrders
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts
from tallygate.flow.reconcile_frozen import FrozenFigures
from tallygate.flow.reconcile_invoicing import InvoicingParts, InvoicingReconcile, SilentInvoicing
from tallygate.flow.reconcile_money import MoneyFigures
from tallygate.flow.remake import KeepRollups
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_mend import Mend
from tallygate.flow.stripe_plan import PlanParts, StripePlanner
from tallygate.flow.stripe_report import TakeReports
from tallygate.flow.stripe_send import SendOptions, SendParts, StripeSender
from tallygate.flow.trail import Trail
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.ports import ParsedCatalog, ShardDepth
from tallygate.ports.period import BillingPeriod
from tallygate.ports.reconcile import PeriodAsked
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tallygate.wiring.declared import Declarations
from tallygate.wiring.invoicing import invoicing_of
from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock
from tallygate_fake_stripe.faults import Rule
from tests.faults.test_verify_counters import no_wait
from tests.month.cast import BEGIN_US, CAST, FAR, METERS, NEAR, catalog, grants, rates
from tests.month.script import Arrival
from tests.servers import connection
from tests.stripe_sync.test_reports import KIND, Heard
from tests.stripe_world import NoPace, Told
from tests.usage_events import entry

SHARDS = 4
BY_HAND = "billed elsewhere"


class MonthClock:
    """The fakes' clock, as ours; what is bounded in real time is bounded by the machine's."""

    def __init__(self, virtual: VirtualClock) -> None:
        self.virtual = virtual

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self.virtual.now_us()

    def monotonic(self) -> float:
        """Return the machine's seconds."""
        return time.monotonic()


class ClosingClock(MonthClock):
    """The same; what closing does every so often, it does by the month's time."""

    def monotonic(self) -> float:
        """Return the month's seconds."""
        return self.now_us() / SECOND_US


@dataclass(slots=True)
class Arrivals:
    """What waits in the stream, as closing asks it."""

    stream: FakeUsageStream

    async def arrived(self) -> Arrived:
        """Say since when something waits; all that was accepted is in the stream or stored."""
        waiting = [each.oldest_us for each in await self.stream.depths() if each.oldest_us]
        return Arrived(Identity(), min(waiting, default=0))


class CastDocuments:
    """Reads the one document there is: the cast."""

    def __init__(self, near: FakeStripe, far: FakeStripe) -> None:
        self.parsed = ParsedCatalog(catalog(near.url, far.url), tuple(each.tenant for each in CAST))

    def parse(self, text: str) -> ParsedCatalog:
        """Return it."""
        assert text == "cast"
        return self.parsed


@dataclass(slots=True)
class Account:
    """A Stripe, and what tells it."""

    stripe: FakeStripe
    client: Client
    api: StripeUsage
    planner: StripePlanner
    sender: StripeSender


@dataclass
class MonthWorld:
    """All of it."""

    dsn: str
    postgres: Postgres
    clock: MonthClock
    near: FakeStripe
    far: FakeStripe
    closers: AsyncExitStack
    heard: Heard = field(default_factory=Heard)
    told: Told = field(default_factory=Told)
    rules: list[Rule] = field(default_factory=list)
    held: int = 0
    sent_again: int = 0

    def __post_init__(self) -> None:
        """Put everything together."""
        postgres, clock = self.postgres, self.clock
        self.catalogs = PostgresCatalogStore(postgres)
        self.apply = Apply(self.catalogs, CastDocuments(self.near, self.far), clock)
        self.streams = FakeStreams(clock.now_us, SHARDS)
        stream = FakeUsageStream(self.streams, "ingest")
        ledger = PostgresLedger(postgres)
        self.ingest = Ingest(IngestParts(stream, ledger, ProtobufEventEncoder(), clock))
        self.rollups = KeepRollups(PostgresRollups(postgres), self.catalogs, clock)
        self.reader = PostgresPeriodReader(postgres)
        periods = PostgresPeriodLedger(postgres)
        folds = PostgresPeriodFolds(postgres)
        self.verify = VerifyPeriods(self.reader, periods, folds)
        parts = ClosingParts(
            periods,
            self.reader,
            self.catalogs,
            Arrivals(FakeUsageStream(self.streams, "periods")),
            ClosingClock(clock.virtual),
            folds,
        )
        self.closing = ClosePeriods(parts, ClosingOptions("control", correction_delay_s=0.0))
        self.orders = PeriodOrders(
            OrderParts(self.reader, PostgresPeriodDesk(postgres), self.catalogs, clock)
        )
        self.intents = PostgresStripeIntents(postgres)
        self.sends = PostgresStripeSends(postgres)
        self.mend = Mend(self.sends, self.catalogs, clock)
        self.accounts = {
            name: self._account(name, stripe)
            for name, stripe in ((NEAR, self.near), (FAR, self.far))
        }
        self.invoicing = invoicing_of(postgres, clock)
        declared = Declarations(self.catalogs, None)
        reads = PostgresReconcileReads(postgres)
        money = PostgresMoneyReads(postgres)
        unasked = MoneyFigures(money, declared, clock)
        sources = (
            FrozenFigures(PostgresFrozenReads(postgres), declared, clock),
            LedgerFigures(reads, declared, clock),
        )
        chains = PostgresPeriodChains(postgres)
        summed = MoneyFigures(money, declared, clock, self)
        all_of_it = (summed, *sources)
        self.reconciling = Reconcile(ReconcileParts(all_of_it, declared, clock, no_wait, chains))
        trail = Trail(PostgresTrailLog(postgres))
        before = Reconcile(ReconcileParts((unasked, *sources), declared, clock, no_wait, chains))
        first = InvoicingParts(
            *(before, PostgresReconcileStore(postgres), PostgresInvoicingStore(postgres)),
            *(clock, SilentInvoicing()),
        )
        drifts = ReconciledFirst(InvoicingReconcile(first))
        queue = PostgresInvoiceQueue(postgres)
        self.issuing = IssueInvoices(IssuingParts(queue, self.invoicing, trail, clock, drifts))
        self.take = TakeReports(self.sends, clock, self.heard)

    def _account(self, name: str, stripe: FakeStripe) -> Account:
        client = Client(lambda: "sk_test_month", ClientOptions(url=stripe.url))
        self.closers.push_async_callback(client.close)
        api = StripeUsage(client, self.clock)
        gate = Gate(self.clock, NoPace(), chance=lambda: 0.0)
        planner = StripePlanner(name, PlanParts(self.intents, self.catalogs, self.clock, self.told))
        sends = SendParts(self.sends, api, gate, self.clock, self.told)
        sender = StripeSender(name, sends, SendOptions(chance=lambda: 0.0))
        return Account(stripe, client, api, planner, sender)

    async def begin(self) -> None:
        """Declare the cast, rates and credits; make Stripe's meters; listen for its reports."""
        await PostgresExchangeRates(self.postgres).write(rates())
        await self.apply.document("cast", ApplyOptions())
        credits_ = PostgresCreditLedger(self.postgres)
        for asked in grants():
            await credits_.grant(asked, 0, self.clock.now_us())
        for meter in METERS.values():
            if meter.stripe is not None:
                account = self.accounts[meter.stripe.destination]
                await account.client.stripe().v1.billing.meters.create_async(
                    {
                        "event_name": meter.stripe.event_name,
                        "display_name": meter.name,
                        "default_aggregation": {"formula": "sum"},
                    },
                    {"api_key": "sk_test_month"},
                )
        listener = ReportsListener("127.0.0.1:0", self.take.take)
        await listener.start()
        self.closers.push_async_callback(listener.stop)
        url = f"http://127.0.0.1:{listener.port}/stripe/{NEAR}"
        self.heard.secret = self.near.add_webhook(url, [KIND])
        source = StripeErrorReports(self.accounts[NEAR].client, lambda: self.heard.secret)
        self.take.sources[NEAR] = source

    async def tick(self, at_us: int, arrivals: Sequence[Arrival]) -> None:
        """Let it be then, and give everything its round."""
        self.clock.virtual.set(at_us / SECOND_US)
        await self.near.settle()
        await self.store(arrivals)
        while (await self.rollups.run_once()).more:
            pass
        await self.close()
        for name, account in self.accounts.items():
            while not (await account.planner.run_once()).last:
                pass
            for _ in range(3):
                await account.sender.run_once()
            if name == NEAR and self.heard.counted:
                self.sent_again += (await self.mend.retry(name)).again

    async def store(self, arrivals: Sequence[Arrival]) -> None:
        """Have entries come to the stream, each third one twice, and drain it."""
        for place in range(0, len(arrivals), 5):
            events = [each.event for each in arrivals[place : place + 5]]
            made = replace(entry(events, place % SHARDS), received_at_us=self.clock.now_us())
            self.streams.add(made)
            if place % 3 == 0:
                self.streams.add(made)
        while any(depth.entries for depth in await self._depths()):
            await self.ingest.run_once()

    async def _depths(self) -> Sequence[ShardDepth]:
        return await FakeUsageStream(self.streams, "look").depths()

    async def close(self) -> None:
        """Close what is due, and issue invoices of it."""
        while True:
            counts = await self.closing.run_once()
            self.held += counts.held
            if not counts.more:
                break
        while (await self.issuing.run_once()).more:
            pass

    async def decide(self) -> None:
        """Close by hand what Stripe would not take any more, where an invoice waits for it."""
        async with connection(self.dsn) as admin:
            rows = await admin.fetch(
                "select send.destination, send.intent_id from tallygate.stripe_send as send"
                " join tallygate.stripe_intent as intent using (intent_id)"
                " join tallygate.invoice_due as due on due.tenant_id = intent.tenant_id"
                " and due.start_at = intent.period_start"
                " where due.held = 'drift' and send.state = 'too_old'"
            )
        for row in rows:
            await self.mend.close(row["destination"], [row["intent_id"]], BY_HAND)

    async def asks(self, destination: str) -> bool:
        """Say whether an account can be asked: always."""
        return destination in self.accounts

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what an account has summed up: the port that reconciliation asks."""
        api = self.accounts[destination].api
        return await api.summed(event_name, customer, window.start_us, window.end_us)

    async def reconcile(self, periods: Iterable[BillingPeriod]) -> list[Reconciled]:
        """Reconcile periods, Stripe's sums included."""
        tenants = await self.catalogs.tenants_named([each.name for each in CAST])
        asked = [
            PeriodAsked(tenants[each.tenant_id], Window(each.start_us, each.end_us))
            for each in periods
        ]
        return await self.reconciling.of(asked)


@asynccontextmanager
async def month_world(dsn: str) -> AsyncIterator[MonthWorld]:
    """Lend a world at its beginning."""
    virtual = VirtualClock(BEGIN_US / SECOND_US)
    customers = [each.tenant.stripe_customer_id for each in CAST if each.tenant.stripe_customer_id]
    async with AsyncExitStack() as closers:
        postgres = Postgres(dsn)
        closers.push_async_callback(postgres.close)
        near, far = [
            await closers.enter_async_context(
                FakeStripe(virtual, behaviour=_behaviour(), customers=customers)
            )
            for _ in (NEAR, FAR)
        ]
        world = MonthWorld(dsn, postgres, MonthClock(virtual), near, far, closers)
        await world.begin()
        yield world


def _behaviour() -> Behaviour:
    """Return a Stripe that sums up ten minutes late, and reports soon after."""
    return Behaviour(signed_by_system_clock=True, rate_limited=False, lag_s=600)
