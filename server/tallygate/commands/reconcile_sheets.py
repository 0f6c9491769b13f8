"""What `tallygate reconcile` shows: pairs, the figures of those that are not exact, repairs.

Guarantees: all are counted, and as many are kept as are shown, those that drift before others.
Refuses to know: how figures are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tallygate.commands.output import Cell, Sheet
from tallygate.domain.drift import spelled
from tallygate.domain.reconcile import Absent, Reading, Reconciled, Step, Verdict
from tallygate.ports.repair import Repaired


@dataclass(slots=True)
class Tally:
    """What was reconciled: all of it counted, the first pairs kept, those that drift before others.

    Kept are at most `kept_max` that are exact, and as many that are not.
    """

    kept_max: int
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    other: list[Reconciled] = field(default_factory=list)
    exact: list[Reconciled] = field(default_factory=list)
    repaired: list[Repaired] = field(default_factory=list)

    def add(self, results: Sequence[Reconciled]) -> None:
        """Count results, and keep them as far as there is room."""
        for each in results:
            self.counts[each.verdict] += 1
            kept = self.exact if each.verdict is Verdict.EXACT else self.other
            if len(kept) < self.kept_max:
                kept.append(each)

    @property
    def shown(self) -> list[Reconciled]:
        """The pairs to be shown."""
        rank = {verdict: place for place, verdict in enumerate(_RANK)}
        other = sorted(self.other, key=lambda each: rank[each.verdict])
        return [*other, *self.exact][: self.kept_max]

    @property
    def clean(self) -> bool:
        """Whether nothing drifts and nothing is unknown."""
        return not self.counts[Verdict.DRIFT] and not self.counts[Verdict.UNKNOWN]


_RANK: Final = (
    *(Verdict.DRIFT, Verdict.UNKNOWN, Verdict.ARCHIVED),
    *(Verdict.IN_FLIGHT, Verdict.LATE, Verdict.EXACT),
)


def sheets_of(tally: Tally) -> Iterator[Sheet]:
    """Iterate over what was found, then what was carried out, then how many came to what."""
    pairs = [
        (
            *_place(each),
            each.verdict.value,
            *(_cell(each.readings, step) for step in _CHAIN),
        )
        for each in tally.shown
    ]
    columns = ("tenant", "meter", "from", "to", "verdict", *(step.value for step in _CHAIN))
    yield Sheet("pairs", columns, pairs)
    figures = [
        (*_place(each)[:3], *_figure(reading))
        for each in tally.shown
        if each.verdict is not Verdict.EXACT
        for reading in each.readings
    ]
    if figures:
        columns = (
            *("tenant", "meter", "from", "step", "name", "units"),
            *("in flight", "late", "aside", "note"),
        )
        yield Sheet("figures", columns, figures)
    repairs = [
        (
            *(*_place(each)[:3], drift.step.value, drift.name, _plain(drift.units)),
            *(repair.remedy.value, _plain(repair.units), repair.detail),
        )
        for each in tally.shown
        for drift, repair in zip(each.drifts, each.repairs, strict=True)
    ]
    if repairs:
        columns = (
            *("tenant", "meter", "from", "step", "name", "drift"),
            *("repair", "append", "how"),
        )
        yield Sheet("repairs", columns, repairs)
    if tally.repaired:
        columns = ("tenant", "meter", "from", "step", "name", "append", "outcome", "how")
        carried = [
            (
                *(each.pair.tenant_id, each.pair.meter, spelled(each.pair.period.start_us)),
                *(each.repair.step.value, each.repair.name, _plain(each.repair.units)),
                *(each.outcome.value, each.detail),
            )
            for each in tally.repaired
        ]
        yield Sheet("carried out", columns, carried)
    counts = [(verdict.value, count) for verdict, count in tally.counts.items()]
    yield Sheet("result", ("verdict", "pairs"), counts)


# What stands in a row; destinations, of which there may be several, stand among the figures.
_CHAIN: Final = tuple(step for step in Step if step is not Step.DELIVERED)


def _place(each: Reconciled) -> tuple[str, str, str, str]:
    pair = each.pair
    start, end = spelled(pair.period.start_us), spelled(pair.period.end_us)
    return pair.tenant_id, pair.meter, start, end


def _cell(readings: Sequence[Reading], step: Step) -> Cell:
    for each in readings:
        if each.step is step:
            return (
                each.figure.why.value
                if isinstance(each.figure, Absent)
                else _plain(each.figure.units)
            )
    return None


def _figure(reading: Reading) -> tuple[Cell, ...]:
    figure = reading.figure
    place = (reading.step.value, reading.name)
    if isinstance(figure, Absent):
        return (*place, None, None, None, None, figure.reason)
    parts = (figure.units, figure.in_flight, figure.late, figure.aside)
    return (*place, *map(_plain, parts), "")


def _plain(units: Decimal) -> Cell:
    whole = units.to_integral_value()
    return int(whole) if whole == units else format(units, "f")
