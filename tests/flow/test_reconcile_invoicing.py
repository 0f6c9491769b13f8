"""Closed periods are reconciled before they are invoiced, and invoices once they are written."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tallygate.domain.drift import Figures
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.reconcile import Pair, Reconciled, Verdict
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts
from tallygate.flow.reconcile_invoicing import (
    PERIODS_MAX,
    InvoicingCounts,
    InvoicingParts,
    InvoicingReconcile,
    worst,
)
from tallygate.ports import LedgerBatch
from tallygate.ports.reconcile_invoicing import InvoicedPeriod, Kind
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.reconcile import FakeReconcileReads, FakeReconcileStore
from tallygate.testing.reconcile_invoicing import FakeInvoicingStore
from tests.usage_events import NOON_US, event

ACME, REQUESTS = TenantId("acme"), MeterName("requests")
PERIOD = Window(NOON_US - DAY_US, NOON_US + DAY_US)


@dataclass(slots=True)
class World:
    """A ledger, what was closed and invoiced, and what is told."""

    now: int = NOON_US + 2 * DAY_US
    ledger: FakeLedger = field(default_factory=FakeLedger)
    invoicing: FakeInvoicingStore = field(default_factory=FakeInvoicingStore)
    checks: Counter[tuple[str, str]] = field(default_factory=Counter)
    accuracy: dict[str, Decimal] = field(default_factory=dict)
    reads: FakeReconcileReads = field(init=False)
    results: FakeReconcileStore = field(init=False)

    def __post_init__(self) -> None:
        """Read that ledger."""
        self.reads = FakeReconcileReads(self.ledger)
        self.results = FakeReconcileStore(self)

    def now_us(self) -> int:
        """Return the time."""
        return self.now

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now / 1e6

    async def wait(self, _seconds: float) -> None:
        """Go on at once."""

    def checked(self, kind: str, verdicts: Mapping[str, int]) -> None:
        """Add it up."""
        for verdict, pairs in verdicts.items():
            self.checks[kind, verdict] += pairs

    def accurate(self, kind: str, pairs: int, exact: int) -> None:
        """Keep it."""
        self.accuracy[kind] = Decimal(exact) / pairs

    def step(self) -> InvoicingReconcile:
        """Return the step of another process."""
        catalogs = FakeCatalogStore()
        sources = [LedgerFigures(self.reads, catalogs, self)]
        reconcile = Reconcile(ReconcileParts(sources, catalogs, self, self.wait))
        return InvoicingReconcile(
            InvoicingParts(reconcile, self.results, self.invoicing, self, self)
        )

    async def close(self, *tenants: str, kind: Kind = Kind.BEFORE) -> None:
        """Have tenants use something in a period that is closed, or invoiced."""
        start = len(self.ledger.events)
        events = [event(start + n, tenant_id=TenantId(each)) for n, each in enumerate(tenants)]
        await self.ledger.persist(LedgerBatch(tuple(events)))
        for each in tenants:
            made = InvoicedPeriod(TenantId(each), PERIOD, 1)
            self.invoicing.there.setdefault(kind, {})[made] = self.now


async def test_each_closed_period_is_looked_at_once() -> None:
    """Its results are a run of its kind; the next round finds nothing to do."""
    world = World()
    await world.close("acme")
    await world.close("other", kind=Kind.AFTER)
    assert await world.step().run_once() == InvoicingCounts(2, 0)
    kinds = sorted(run.split("-")[0] for run in world.results.runs)
    assert kinds == ["after", "before"]
    assert all(run.finished_us for run in world.results.runs.values())
    assert world.checks == {("before", "exact"): 1, ("after", "exact"): 1}
    assert world.accuracy == {"before": 1, "after": 1}
    assert await world.step().run_once() == InvoicingCounts()


async def test_a_drift_is_looked_at_until_it_is_none() -> None:
    """Once an hour, told once; then the period counts as exact."""
    world = World()
    await world.close("acme")
    world.reads.rollups[ACME, REQUESTS] = Figures(1, 2, 2, 2)
    assert await world.step().run_once() == InvoicingCounts(1, 1)
    assert len(world.results.messages) == 1
    assert (await world.step().run_once()).periods == 0
    world.now += HOUR_US
    assert await world.step().run_once() == InvoicingCounts(1, 1)
    assert len(world.results.messages) == 1
    assert world.accuracy == {"before": 0}
    world.reads.rollups.clear()
    world.now += HOUR_US
    assert await world.step().run_once() == InvoicingCounts(1, 0)
    world.now += HOUR_US
    assert (await world.step().run_once()).periods == 0
    assert world.accuracy == {"before": 1}


async def test_a_round_is_bounded() -> None:
    """A month's end has a period of every tenant; the loop goes on with the rest at once."""
    world = World()
    await world.close(*(f"tenant-{number}" for number in range(PERIODS_MAX + 1)))
    assert await world.step().run_once() == InvoicingCounts(PERIODS_MAX, 0, more=True)
    assert await world.step().run_once() == InvoicingCounts(1, 0)


async def test_whoever_issues_asks_first() -> None:
    """A check returns the worst verdict of the period's meters, at once."""
    world = World()
    await world.close("acme")
    of = InvoicedPeriod(ACME, PERIOD, 1)
    assert await world.step().check(Kind.BEFORE, of) is Verdict.EXACT
    world.reads.rollups[ACME, REQUESTS] = Figures(1, 2, 2, 2)
    world.now += 1
    assert await world.step().check(Kind.BEFORE, of) is Verdict.DRIFT


def test_the_worst_verdict_counts() -> None:
    """Of no pair at all nothing is wrong."""
    pair = Pair(ACME, REQUESTS, PERIOD)
    made = [Reconciled(pair, (), each) for each in Verdict]
    assert worst(made) is Verdict.DRIFT
    assert worst(made[:3]) is Verdict.IN_FLIGHT
    assert worst([]) is Verdict.EXACT
