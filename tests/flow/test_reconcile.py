"""Reconciliation goes through all tenants once a day, whoever runs, and looks twice at a drift."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest

from tallygate.domain.catalog import Aggregation, Catalog, Meter, Plan, Tenant
from tallygate.domain.drift import Figures
from tallygate.domain.errors import BackendUnavailable, UnknownTenant
from tallygate.domain.ids import EventId, MeterName, PlanName, TenantId
from tallygate.domain.reconcile import Absent, Figure, Reading, Reconciled, Step, Verdict, Why
from tallygate.domain.window import DAY_US, Calendar, Window, from_datetime, to_datetime
from tallygate.flow.reconcile import (
    PART_ARCHIVED,
    DailyParts,
    DailyReconcile,
    LedgerFigures,
    Reconcile,
    ReconcileParts,
    ToldFigures,
)
from tallygate.flow.reconcile_frozen import ARCHIVED, Unarchived
from tallygate.ports import LedgerBatch
from tallygate.ports.reconcile import FigureSource, PeriodAsked, RunState, StepReading
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_chain import FakePeriodChains
from tallygate.testing.reconcile import FakeReconcileReads, FakeReconcileStore
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
REQUESTS = MeterName("requests")
MONTH = Window(
    from_datetime(to_datetime(NOON_US).replace(day=1, hour=0)),
    from_datetime(to_datetime(NOON_US).replace(month=12, day=1, hour=0)),
)
CATALOG = Catalog(
    version=1,
    meters={
        REQUESTS: Meter(REQUESTS),
        MeterName("calls"): Meter(MeterName("calls"), Aggregation.COUNT),
        MeterName("peak"): Meter(MeterName("peak"), Aggregation.MAX),
    },
    plans={PlanName("free"): Plan(PlanName("free"))},
)


@dataclass(slots=True)
class Fixed:
    """A source of a test's own figures, a list for each look; the last one stays."""

    looks: list[list[StepReading]]

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return the figures of the next look, all of the last period asked for."""
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [replace(each, ask=len(asked) - 1) for each in look]


@dataclass(slots=True)
class World:
    """A ledger, who is declared, a clock, and all that is told."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    tenants: dict[TenantId, Tenant] = field(default_factory=dict)
    catalog: Catalog = CATALOG
    now: int = NOON_US
    waits: list[float] = field(default_factory=list)
    told: list[object] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    sources: list[Fixed] = field(default_factory=list)
    unarchived: list[Fixed] = field(default_factory=list)
    chains: FakePeriodChains = field(default_factory=FakePeriodChains)
    reads: FakeReconcileReads = field(init=False)
    store: FakeReconcileStore = field(init=False)

    def __post_init__(self) -> None:
        """Read that ledger."""
        self.reads = FakeReconcileReads(self.ledger)
        self.store = FakeReconcileStore(self)

    def now_us(self) -> int:
        """Return the time."""
        return self.now

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now / 1e6

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog."""
        return self.catalog

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those that are declared."""
        return {each: self.tenants[each] for each in ids if each in self.tenants}

    async def wait(self, seconds: float) -> None:
        """Note the pause."""
        self.waits.append(seconds)

    def reconciled(
        self, state: RunState, verdicts: Mapping[str, int], drift_units: Mapping[str, Decimal]
    ) -> None:
        """Note it."""
        self.told.append((state.run_id, dict(verdicts), dict(drift_units)))

    def checked(self, kind: str, verdicts: Mapping[str, int]) -> None:
        """Add it up."""
        for verdict, pairs in verdicts.items():
            self.checks[f"{kind} {verdict}"] += pairs

    def aged(self, seconds: float) -> None:
        """Note it."""
        self.told.append(seconds)

    def reconcile(self) -> Reconcile:
        """Return what reconciles them."""
        sources: list[FigureSource] = [
            *self.sources,
            *(Unarchived(each, self.reads) for each in self.unarchived),
            ToldFigures(self.reads, self, self),
            LedgerFigures(self.reads, self, self),
        ]
        return Reconcile(ReconcileParts(sources, self, self, self.wait, self.chains))

    def daily(self) -> DailyReconcile:
        """Return the step of another process."""
        return DailyReconcile(DailyParts(self.reconcile(), self.reads, self.store, self, self))

    async def use(self, *tenants: str) -> None:
        """Have tenants use something."""
        start = len(self.ledger.events)
        events = [
            event(start + number, tenant_id=TenantId(each)) for number, each in enumerate(tenants)
        ]
        await self.ledger.persist(LedgerBatch(tuple(events)))

    async def of(self, tenant: TenantId = ACME) -> list[Reconciled]:
        """Reconcile a tenant's two periods."""
        found = self.reconcile()
        return await found.of(await found.known([tenant]))


def reading(step: Step, units: int, meter: str = "requests", ask: int = 1) -> StepReading:
    """Return a figure of the current period."""
    return StepReading(ask, MeterName(meter), Reading(step, Figure(Decimal(units))))


async def test_periods_are_the_tenants() -> None:
    """The current and the last period in the tenant's zone from its anchor; or that of a date."""
    world = World()
    anchored = Calendar("Europe/Berlin", from_datetime(to_datetime(NOON_US).replace(day=15)))
    world.tenants[ACME] = Tenant(ACME, PlanName("free"), anchored)
    found = world.reconcile()
    last, current = await found.periods([ACME])
    assert last.period.end_us == current.period.start_us
    assert current.period.holds(NOON_US)
    assert to_datetime(current.period.start_us).day == 15
    (asked,) = await found.periods([ACME], NOON_US - 40 * DAY_US)
    assert asked.period.holds(NOON_US - 40 * DAY_US)
    with pytest.raises(UnknownTenant):
        await found.periods([TenantId("nobody")])
    assert [each.period for each in await found.known([TenantId("nobody")], NOON_US)] == [MONTH]


async def test_meters_are_taken_as_they_are_declared() -> None:
    """A meter that counts has its events, one that takes the largest has that, others their sum."""
    world = World()
    events = [
        event(number, amount=number, meter=MeterName(meter))
        for number, meter in enumerate(["requests", "calls", "peak", "undeclared"] * 2, 1)
    ]
    await world.ledger.persist(LedgerBatch(tuple(events)))
    found = {each.pair.meter: each for each in await world.of()}
    assert {meter: int(ledger(each)) for meter, each in found.items()} == {
        "calls": 2,
        "peak": 7,
        "requests": 6,
        "undeclared": 12,
    }
    assert {each.verdict for each in found.values()} == {Verdict.EXACT}


def ledger(result: Reconciled) -> Decimal:
    """Return what the ledger has."""
    figure = next(each.figure for each in result.readings if each.step is Step.LEDGER)
    assert isinstance(figure, Figure)
    return figure.units


async def test_minutes_that_a_period_cuts_are_no_figure() -> None:
    """Of a period that begins within a minute the rollup is left out, and nothing drifts."""
    world = World()
    world.sources = [Fixed([[reading(Step.INTENTS, 1, ask=0)]])]
    await world.use("acme")
    (result,) = await world.reconcile().of_period(ACME, Window(NOON_US - 1, NOON_US + DAY_US))
    (rollup,) = [each.figure for each in result.readings if each.step is Step.ROLLUP]
    assert (isinstance(rollup, Absent), result.verdict) == (True, Verdict.EXACT)


async def test_periods_that_are_kept_come_before_the_calendar() -> None:
    """A tenant's chain says when its periods begin, whatever its calendar says by now."""
    world = World()
    kept = Window(NOON_US - 9 * DAY_US, NOON_US - 2 * DAY_US)
    world.chains.kept[ACME] = [kept]
    found = world.reconcile()
    last, current = await found.known([ACME])
    assert (last.period, current.period) == (kept, Window(kept.end_us, MONTH.end_us))
    (asked,) = await found.known([ACME], kept.start_us)
    assert asked.period == kept


async def test_archived_months_count_and_say_so() -> None:
    """A whole month counts as archived, a part of one is told by nobody, and nothing drifts."""
    world = World()
    month = Window(MONTH.start_us - 30 * DAY_US, MONTH.start_us)
    world.reads.archives[month] = {(ACME, REQUESTS): Figures(2, 7, 5, 2)}
    world.unarchived = [Fixed([[reading(Step.INTENTS, 7, ask=0)]])]
    found = world.reconcile()
    (result,) = await found.of_period(ACME, month)
    assert result.verdict is Verdict.ARCHIVED
    figures = {each.step: each.figure for each in result.readings}
    assert figures[Step.LEDGER] == figures[Step.ROLLUP] == Figure(Decimal(7))
    assert figures[Step.INTENTS] == ARCHIVED
    world.reads.rollups[ACME, REQUESTS] = Figures(2, 8, 5, 2)
    (result,) = await found.of_period(ACME, month)
    assert [(each.step, int(each.units)) for each in result.drifts] == [(Step.ROLLUP, 1)]
    await world.use("acme")
    (result,) = await found.of_period(ACME, Window(month.start_us + DAY_US, MONTH.end_us))
    figures = {each.step: each.figure for each in result.readings}
    assert (figures[Step.LEDGER], result.verdict) == (PART_ARCHIVED, Verdict.ARCHIVED)


async def test_a_drift_is_looked_at_again() -> None:
    """What was off for a moment is not; what stays off is, after three looks with pauses."""
    world = World()
    await world.use("acme")
    right, wrong = [reading(Step.INTENTS, 1)], [reading(Step.INTENTS, 2)]
    world.sources = [Fixed([wrong, wrong, right])]
    assert [each.verdict for each in await world.of()] == [Verdict.EXACT]
    assert len(world.waits) == 2
    world.sources = [Fixed([wrong])]
    (result,) = await world.of()
    assert [(each.step, int(each.units)) for each in result.drifts] == [(Step.INTENTS, 1)]
    assert len(world.waits) == 4


async def test_usage_that_the_ledger_has_not_is_found() -> None:
    """Where another step has a meter of which the ledger knows nothing, that is a drift."""
    world = World()
    world.sources = [Fixed([[reading(Step.INTENTS, 3), reading(Step.STRIPE, 0, "idle")]])]
    (result,) = await world.of()
    assert (result.pair.meter, result.verdict) == (REQUESTS, Verdict.DRIFT)
    assert ledger(result) == 0


async def test_what_holds_for_all_meters_is_filled_in() -> None:
    """A step without a figure of any meter says so of each, but where it has one."""
    world = World()
    await world.use("acme")
    await world.ledger.persist(LedgerBatch((event(99, meter=MeterName("calls")),)))
    absent = Reading(Step.STRIPE, Absent(Why.SHADOW, "nothing is sent"))
    world.sources = [
        Fixed([[StepReading(1, MeterName(""), absent), reading(Step.STRIPE, 1, "calls")]])
    ]
    calls, requests = await world.of()
    assert absent in requests.readings
    assert absent not in calls.readings


async def test_destinations_are_reconciled() -> None:
    """What was told and not delivered is in flight; what was lost on the way is a drift."""
    world = World()
    world.reads.since_us["hook"] = 0
    await world.use("acme", "acme")
    first, second = (each.event_id for each in world.ledger.events)
    told = world.reads.told_events.setdefault("hook", {first: "delivered", second: "pending"})
    assert [each.verdict for each in await world.of()] == [Verdict.IN_FLIGHT]
    told[second] = "delivered"
    assert [each.verdict for each in await world.of()] == [Verdict.EXACT]
    del told[EventId(second)]
    (result,) = await world.of()
    assert [(each.name, int(each.units)) for each in result.drifts] == [("hook", -1)]
    world.reads.since_us["hook"] = NOON_US + DAY_US
    assert [each.verdict for each in await world.of()] == [Verdict.EXACT]


async def run_all(daily: DailyReconcile) -> tuple[int, int]:
    """Run until the day is done; return pairs and new drifts."""
    pairs, drifts = 0, 0
    while True:
        counts = await daily.run_once()
        pairs, drifts = pairs + counts.pairs, drifts + counts.drifts
        if not counts.more:
            return pairs, drifts


async def test_everybody_is_reconciled_once_a_day() -> None:
    """All tenants' pairs are stored by day; the accuracy and its age are told once it is done."""
    world = World()
    await world.use(*(f"t{number:02}" for number in range(45)))
    world.reads.rollups[TenantId("t07"), REQUESTS] = Figures(1, 4, 1, 1)
    daily = world.daily()
    assert await run_all(daily) == (45, 1)
    assert await run_all(daily) == (0, 0)
    run_id = f"daily-{to_datetime(NOON_US):%Y-%m-%d}"
    assert world.store.runs[run_id] == RunState(run_id, "t44", 45, 44, 1, NOON_US)
    assert world.told[0] == (run_id, {"exact": 44, "drift": 1}, {"rollup": 3})
    assert world.told[1:] == [0.0, 0.0]
    world.now += DAY_US
    assert await run_all(daily) == (45, 0)
    assert len(world.store.messages) == 1


async def test_two_processes_share_a_day() -> None:
    """Each part is stored once, whichever process was first; both come to the end."""
    world = World()
    await world.use(*(f"t{number:02}" for number in range(45)))
    first, second = world.daily(), world.daily()
    while True:
        one, other = await first.run_once(), await second.run_once()
        if not (one.more or other.more):
            break
    (run,) = world.store.runs.values()
    assert (run.pairs, run.exact, bool(run.finished_us)) == (45, 45, True)


async def test_a_day_goes_on_after_an_outage() -> None:
    """What was stored before the ledger went away is not read again."""
    world = World()
    await world.use(*(f"t{number:02}" for number in range(30)))
    daily = world.daily()
    assert (await daily.run_once()).pairs == 20
    world.ledger.down = True
    with pytest.raises(BackendUnavailable):
        await daily.run_once()
    world.ledger.down = False
    assert await run_all(world.daily()) == (10, 0)


async def test_an_empty_installation_is_reconciled() -> None:
    """Without any usage there is nothing to tell but that it is done."""
    world = World()
    assert await run_all(world.daily()) == (0, 0)
    assert world.told[0] == (f"daily-{to_datetime(NOON_US):%Y-%m-%d}", {}, {})
