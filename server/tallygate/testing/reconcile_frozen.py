"""What closed periods were frozen with, in memory.

Guarantees: passes the same contract tests as the reads in Postgres.
Refuses to know: how a total is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tallygate.domain import period
from tallygate.domain.drift import NOTHING, Figures
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.ports.period import BillingPeriod, PeriodQuery
from tallygate.ports.reconcile import FrozenUsage, PeriodAsked
from tallygate.testing.period import FakePeriods
from tallygate.testing.period_books import LateEvent, figures_of

_ALL = 1_000_000


@dataclass(slots=True)
class FakeFrozenReads:
    """The `FrozenReads` port, over periods in memory."""

    periods: FakePeriods

    async def frozen(self, asked: Sequence[PeriodAsked]) -> Mapping[int, Sequence[FrozenUsage]]:
        """Return what was frozen, by the place of each ask whose period was ever sealed."""
        found: dict[int, Sequence[FrozenUsage]] = {}
        for number, each in enumerate(asked):
            kept = await self.periods.period(each.tenant.tenant_id, each.period.start_us)
            if kept is not None and kept.revision and kept.end_us == each.period.end_us:
                found[number] = await self._of(number, kept)
        return found

    async def _of(self, number: int, of: BillingPeriod) -> list[FrozenUsage]:
        all_of_it = await self.periods.periods(PeriodQuery(of.tenant_id, limit=_ALL))
        revisions = {each.start_us: each.revision for each in all_of_it}
        totals = await self.periods.frozen(of.tenant_id, of.start_us, of.revision)
        # Where a meter was frozen whole and by group, these are parts of the whole.
        grouped: dict[MeterName, period.Figures] = {}
        for each in totals:
            if each.group:
                before = grouped.get(each.meter, period.Figures())
                grouped[each.meter] = before.merged(each.figures)
        whole = {each.meter: each.figures for each in totals if not each.group}
        frozen = {meter: _figures(figures) for meter, figures in {**grouped, **whole}.items()}
        units: dict[MeterName, Decimal] = {}
        for other in all_of_it:
            if not other.revision:
                continue
            for late_one in await self.periods.adjustments(
                of.tenant_id, other.start_us, other.revision
            ):
                if late_one.closed_start_us == of.start_us:
                    before_it = units.get(late_one.meter, Decimal(0))
                    units[late_one.meter] = before_it + late_one.quantity
        late: dict[tuple[MeterName, str], list[UsageEvent]] = {}
        for noted in self.periods.noted:
            closed = noted.closed
            if closed == period.PeriodKey(of.tenant_id, of.start_us):
                kind = _kind(noted, of, revisions)
                late.setdefault((noted.event.meter, kind), []).append(noted.event)
        meters = {*frozen, *units, *(meter for meter, kind in late if kind)}

        def figures(meter: MeterName, kind: str) -> Figures:
            return _figures(figures_of(late.get((meter, kind), ())))

        return [
            FrozenUsage(
                number,
                meter,
                frozen.get(meter, NOTHING),
                figures(meter, "billed"),
                units.get(meter, Decimal(0)),
                figures(meter, "unbilled"),
                figures(meter, "pending"),
            )
            for meter in sorted(meters)
        ]


def _kind(noted: LateEvent, of: BillingPeriod, revisions: Mapping[int, int]) -> str:
    """Say what became of a late event: empty where it is in the period's total by now."""
    place = noted.place
    there = place.revision <= revisions.get(place.start_us, 0)
    if place.start_us == of.start_us:
        return "" if there else "pending"
    return "billed" if there else "unbilled"


def _figures(of: period.Figures) -> Figures:
    return Figures(of.count, of.sum, of.max, of.min)
