"""ledger · counters · rollups · money ─▶ [ reconcile ] ─▶ verdicts, repairs, messages of drift.

If we die here between two parts of a run, the next process goes on behind the last one that was
stored; within a part, that part is read again, and stored once.

Guarantees: every pair of tenant and meter with usage in a period gets a verdict; what is off is
looked at again before it is said, as figures are read one after the other; a drift is told once.
Refuses to know: SQL, Redis, Stripe, and how results are shown.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, Protocol

from tallygate.domain.billed import PLAIN, quantity_of
from tallygate.domain.billed import Figures as Billed
from tallygate.domain.catalog import Aggregation, Catalog, Tenant, default_tenant
from tallygate.domain.drift import Figures
from tallygate.domain.errors import UnknownTenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.period_chain import Chain
from tallygate.domain.reconcile import (
    NONE,
    Absent,
    Figure,
    Pair,
    Reading,
    Reconciled,
    Step,
    Verdict,
    Why,
    reconciled,
)
from tallygate.domain.window import DAY_US, MINUTE_US, Calendar, Window, to_datetime
from tallygate.ports import Clock
from tallygate.ports.period_chain import PeriodChains
from tallygate.ports.rebuild import Declared
from tallygate.ports.reconcile import (
    FigureSource,
    PeriodAsked,
    PeriodUsage,
    ReconcileReads,
    ReconcileStore,
    RunPart,
    RunState,
    StepReading,
)

# Their events are read in one statement, and stored in one transaction.
TENANTS_MAX: Final = 20
ATTEMPTS_MAX: Final = 3
# Counters are corrected once a second.
PAUSE_S: Final = 1.5
ALL: Final = MeterName("")
NOTHING: Final = Figure(NONE)
CUT: Final = Absent(Why.NOT_KEPT, "the period does not begin and end with a minute")
PART_ARCHIVED: Final = Absent(Why.ARCHIVED, "events of a part of the period are archived")
# Of who is not declared, whose limits nobody asks for.
PLANLESS: Final = PlanName("")

Wait = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ReconcileParts:
    """What is reconciled: sources in the order in which they are read, the newest facts first.

    The ledger comes last: what is in flight at any other step is then in it. Without `chains`
    periods are those of the calendars alone.
    """

    sources: Sequence[FigureSource]
    declared: Declared
    clock: Clock
    wait: Wait = asyncio.sleep
    chains: PeriodChains | None = None


class Reconcile:
    """Reconciles tenants' billing periods."""

    def __init__(self, parts: ReconcileParts) -> None:
        self._parts = parts

    async def periods(self, ids: Sequence[TenantId], at_us: int | None = None) -> list[PeriodAsked]:
        """Return the tenants' periods at an instant; without, their current and last ones.

        Raises `UnknownTenant` for one that is not declared and has no default plan.
        """
        now_us = self._parts.clock.now_us()
        catalog = await self._parts.declared.effective(now_us) or Catalog()
        known = await self._parts.declared.tenants_named(ids)
        found: list[Tenant] = []
        for each in ids:
            tenant = known.get(each) or default_tenant(catalog, each)
            if tenant is None:
                raise UnknownTenant(field="TENANT")
            found.append(tenant)
        return await self._periods(found, now_us, at_us)

    async def known(self, ids: Sequence[TenantId], at_us: int | None = None) -> list[PeriodAsked]:
        """Return the same of tenants that have usage, also of those that nobody declares."""
        now_us = self._parts.clock.now_us()
        known = await self._parts.declared.tenants_named(ids)
        # Usage of who is not declared any more is in the calendar's own periods.
        tenants = [known.get(each) or Tenant(each, PLANLESS, Calendar()) for each in ids]
        return await self._periods(tenants, now_us, at_us)

    async def of_period(self, tenant_id: TenantId, period: Window) -> list[Reconciled]:
        """Return what each meter of a tenant came to in a period, as whoever invoices it asks."""
        known = await self._parts.declared.tenants_named([tenant_id])
        tenant = known.get(tenant_id) or Tenant(tenant_id, PLANLESS, Calendar())
        return await self.of([PeriodAsked(tenant, period)])

    async def of(self, asked: Sequence[PeriodAsked]) -> list[Reconciled]:
        """Return what each meter with usage in these periods came to.

        Raises `BackendUnavailable` when Postgres does not answer; what else does not is unknown.
        """
        found = await self._look(asked)
        for _ in range(ATTEMPTS_MAX - 1):
            doubtful = {
                (each.pair.tenant_id, each.pair.period): None
                for each in found.values()
                if each.verdict is Verdict.DRIFT
            }
            if not doubtful:
                break
            await self._parts.wait(PAUSE_S)
            again = [each for each in asked if (each.tenant.tenant_id, each.period) in doubtful]
            found |= await self._look(again)
        return list(found.values())

    async def _periods(
        self, tenants: Sequence[Tenant], now_us: int, at_us: int | None
    ) -> list[PeriodAsked]:
        """Return each tenant's period at an instant; without one, its last and its current one."""
        instant_us = now_us if at_us is None else at_us
        ids = [each.tenant_id for each in tenants]
        kept = (
            await self._parts.chains.around(ids, instant_us, instant_us)
            if (self._parts.chains is not None)
            else {}
        )
        found: list[PeriodAsked] = []
        for tenant in tenants:
            chain = Chain(tenant.calendar, tuple(kept.get(tenant.tenant_id, ())))
            current = chain.at(instant_us)
            if at_us is None:
                found.append(PeriodAsked(tenant, chain.before(current)))
            found.append(PeriodAsked(tenant, current))
        return found

    async def _look(self, asked: Sequence[PeriodAsked]) -> dict[Pair, Reconciled]:
        rows: list[StepReading] = []
        for source in self._parts.sources:
            rows += await source.figures(asked)
        meters: dict[int, dict[MeterName, list[Reading]]] = {}
        for row in rows:
            if row.meter != ALL:
                meters.setdefault(row.ask, {}).setdefault(row.meter, []).append(row.reading)
        for row in rows:
            if row.meter == ALL:
                for readings in meters.get(row.ask, {}).values():
                    _fill(readings, row.reading)
        return {
            pair: reconciled(pair, _with_ledger(readings))
            for number, each in enumerate(asked)
            for meter, readings in sorted(meters.get(number, {}).items())
            if _used(readings)
            for pair in [Pair(each.tenant.tenant_id, meter, each.period)]
        }


class LedgerFigures:
    """The `FigureSource` of ledger and rollup, which are of one instant."""

    def __init__(self, reads: ReconcileReads, declared: Declared, clock: Clock) -> None:
        self._reads = reads
        self._declared = declared
        self._clock = clock

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return what events and minutes have, as each meter is taken."""
        catalog = await self._declared.effective(self._clock.now_us()) or Catalog()
        found: list[StepReading] = []
        for each in await self._reads.usage(asked):
            meter = catalog.meters.get(each.meter)
            aggregation = meter.aggregation if meter is not None else Aggregation.SUM
            period = asked[each.ask].period
            # Minutes that a period cuts say nothing of either part.
            whole = not period.start_us % MINUTE_US and not period.end_us % MINUTE_US
            rollup = taken(each.rollup, aggregation) if whole else CUT
            ledger = PART_ARCHIVED if each.archived else _ledger(each, aggregation)
            for step, figure in ((Step.LEDGER, ledger), (Step.ROLLUP, rollup)):
                found.append(StepReading(each.ask, each.meter, Reading(step, figure)))
            for name, figures in sorted(each.others.items()) if whole else ():
                reading = Reading(Step.ROLLUP, taken(figures, aggregation), name)
                found.append(StepReading(each.ask, each.meter, reading))
        return found


class ToldFigures:
    """The `FigureSource` of destinations: what each was told, and what it has taken of that."""

    def __init__(self, reads: ReconcileReads, declared: Declared, clock: Clock) -> None:
        self._reads = reads
        self._declared = declared
        self._clock = clock

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return what each destination was delivered of meters that add up."""
        catalog = await self._declared.effective(self._clock.now_us()) or Catalog()
        found: list[StepReading] = []
        for each in await self._reads.told(asked):
            meter = catalog.meters.get(each.meter)
            # What is told and not delivered is on its way, or parked for an operator.
            due = each.ledger - each.aside - (each.told - each.delivered)
            figure: Figure | Absent = Figure(
                Decimal(each.delivered), aside=Decimal(each.aside), due=Decimal(due)
            )
            if meter is not None and meter.aggregation is not Aggregation.SUM:
                figure = Absent(Why.NOT_KEPT, "messages are of units, the meter is not")
            reading = Reading(Step.DELIVERED, figure, each.destination)
            found.append(StepReading(each.ask, each.meter, reading))
        return found


class ReconcileObserver(Protocol):
    """What reconciliation tells."""

    def reconciled(
        self, state: RunState, verdicts: Mapping[str, int], drift_units: Mapping[str, Decimal]
    ) -> None:
        """The daily run that was finished last came to this."""

    def checked(self, kind: str, verdicts: Mapping[str, int]) -> None:
        """So many pairs came to each verdict in a part of a run of that kind."""

    def aged(self, seconds: float) -> None:
        """It was finished so long ago."""


@dataclass(frozen=True, slots=True)
class DailyParts:
    """What a daily reconciliation works with."""

    reconcile: Reconcile
    reads: ReconcileReads
    store: ReconcileStore
    clock: Clock
    observer: ReconcileObserver


@dataclass(frozen=True, slots=True)
class DailyCounts:
    """What one run of the loop did: pairs reconciled, drifts that are new."""

    pairs: int = 0
    drifts: int = 0
    more: bool = False


@dataclass(slots=True)
class DailyReconcile:
    """Reconciles everybody once a day, a few tenants in each run."""

    parts: DailyParts
    _shown: str = field(default="", init=False)

    async def run_once(self) -> DailyCounts:
        """Go on with today's reconciliation, where it is not finished."""
        parts, now_us = self.parts, self.parts.clock.now_us()
        state = await parts.store.begin(f"daily-{to_datetime(now_us - now_us % DAY_US):%Y-%m-%d}")
        counts = DailyCounts() if state.finished_us else await self._part(state)
        await self._show(now_us)
        return counts

    async def _part(self, state: RunState) -> DailyCounts:
        parts = self.parts
        tenants = await parts.reads.tenants(state.after, TENANTS_MAX)
        results = await parts.reconcile.of(await parts.reconcile.known(tenants))
        last = len(tenants) < TENANTS_MAX
        until = tenants[-1] if tenants else state.after
        now_us = parts.clock.now_us()
        part = RunPart(state.run_id, state.after, until, now_us, results, last)
        new = await parts.store.add(part)
        if new is None:
            # Another process has come further: what it has stored is where this one goes on.
            return DailyCounts(more=True)
        verdicts = Counter(each.verdict.value for each in results)
        parts.observer.checked("daily", verdicts)
        return DailyCounts(len(results), new, more=not last)

    async def _show(self, now_us: int) -> None:
        newest = await self.parts.store.newest()
        if newest is None:
            return
        store, observer = self.parts.store, self.parts.observer
        if newest.run_id != self._shown:
            verdicts = await store.verdicts(newest.run_id)
            units = await store.drift_units(newest.run_id)
            observer.reconciled(newest, verdicts, units)
            self._shown = newest.run_id
        observer.aged(max(0, now_us - newest.finished_us) / 1_000_000)


def _fill(readings: list[Reading], general: Reading) -> None:
    """Add what holds for all meters, where there is nothing of the step."""
    if not any((each.step, each.name) == (general.step, general.name) for each in readings):
        readings.append(general)


def _used(readings: Sequence[Reading]) -> bool:
    """Say whether anything has usage, or cannot be asked: most meters of most plans have none."""
    return any(
        each.figure.why is Why.UNKNOWN
        if isinstance(each.figure, Absent)
        else each.step is Step.LEDGER or each.figure.units or each.figure.due
        for each in readings
    )


def _with_ledger(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Return readings with what a ledger without a row of them has, which is nothing."""
    if any(each.step is Step.LEDGER for each in readings):
        return readings
    return [*readings, *(Reading(step, NOTHING) for step in (Step.LEDGER, Step.ROLLUP))]


def _ledger(of: PeriodUsage, aggregation: Aggregation) -> Figure:
    """Return what events come to; where keys say that some are gone, rollups still have them."""
    figure = taken(of.ledger, aggregation)
    if of.keyless and of.ledger.count != of.rollup.count:
        return replace(figure, due=taken(of.rollup, aggregation).units)
    return figure


def taken(figures: Figures, aggregation: Aggregation) -> Figure:
    """Return the figure by which a meter is taken; its units where rollups of all say no more."""
    plain = aggregation if aggregation in PLAIN else Aggregation.SUM
    return Figure(quantity_of(plain, Billed(figures.count, figures.sum, figures.max, figures.min)))
