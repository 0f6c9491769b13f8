"""closed periods · archives ─▶ [ reconcile frozen ] ─▶ totals, and what events cannot tell.

If we die here, nothing has happened: it only reads.

Guarantees: what came late for a closed period is late there while another period bills it, and in
flight while the period's own next revision is to have it. Where events were dropped, a step that is
worked out of them says so, and never tells a smaller number.
Refuses to know: SQL, and how a revision is made.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog
from tallygate.domain.compare import EXACT
from tallygate.domain.drift import Figures
from tallygate.domain.ids import MeterName
from tallygate.domain.limit_rules import ADDING
from tallygate.domain.period import Figures as Added
from tallygate.domain.reconcile import NONE, Absent, Figure, Reading, Step, Why
from tallygate.flow.reconcile import ALL, taken
from tallygate.ports import Clock
from tallygate.ports.rebuild import Declared
from tallygate.ports.reconcile import (
    FigureSource,
    FrozenReads,
    FrozenUsage,
    PeriodAsked,
    ReconcileReads,
    StepReading,
)

OPEN: Final = Absent(Why.NOT_KEPT, "the period is not closed")
ARCHIVED: Final = Absent(Why.ARCHIVED, "events of the period are in an archive alone")


class FrozenFigures:
    """The `FigureSource` of what closed periods were frozen with."""

    def __init__(self, reads: FrozenReads, declared: Declared, clock: Clock) -> None:
        self._reads = reads
        self._declared = declared
        self._clock = clock

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return the newest revision's totals, as each meter is taken."""
        catalog = await self._declared.effective(self._clock.now_us()) or Catalog()
        frozen = await self._reads.frozen(asked)
        found: list[StepReading] = []
        for number in range(len(asked)):
            for each in frozen.get(number, ()):
                meter = catalog.meters.get(each.meter)
                aggregation = meter.aggregation if meter is not None else Aggregation.SUM
                reading = Reading(Step.FROZEN, _figure(each, aggregation))
                found.append(StepReading(number, each.meter, reading))
            # A sealed period has nothing of a meter that it has no total of.
            general = Figure(NONE) if number in frozen else OPEN
            found.append(StepReading(number, MeterName(ALL), Reading(Step.FROZEN, general)))
        return found


class Unarchived:
    """A `FigureSource` whose figures are worked out of events, and so none where these are gone."""

    def __init__(self, source: FigureSource, reads: ReconcileReads) -> None:
        self._source = source
        self._reads = reads

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return the source's figures but for periods of which events were dropped."""
        found = await self._source.figures(asked)
        months = await self._reads.dropped()
        gone = {
            number
            for number, each in enumerate(asked)
            if any(
                month.start_us < each.period.end_us and month.end_us > each.period.start_us
                for month in months
            )
        }
        return [
            replace(row, reading=replace(row.reading, figure=ARCHIVED))
            if row.ask in gone and isinstance(row.reading.figure, Figure)
            else row
            for row in found
        ]


def _figure(of: FrozenUsage, aggregation: Aggregation) -> Figure:
    """Return what was frozen; what came late is what it makes of a total more."""
    units = taken(of.frozen, aggregation).units
    elsewhere = _merged(of.frozen, of.billed, of.unbilled)
    with_late = taken(elsewhere, aggregation).units
    late = EXACT.subtract(with_late, units)
    if aggregation in ADDING:
        # What is billed counts, and not what it should have been.
        unbilled = taken(of.unbilled, aggregation).units
        late = EXACT.add(of.billed_units, unbilled)
    all_of_it = taken(_merged(elsewhere, of.pending), aggregation).units
    return Figure(
        Decimal(units), in_flight=EXACT.subtract(all_of_it, with_late), late=Decimal(late)
    )


def _merged(*parts: Figures) -> Figures:
    """Return what events come to that were added up apart."""
    found = Added()
    for each in parts:
        found = found.merged(Added(each.count, each.sum, each.max, each.min))
    return Figures(found.count, found.sum, found.max, found.min)
