"""Folding meters of billing periods in memory, from the events that a revision covers.

Guarantees: passes the same contract tests as folding in Postgres; what is folded follows
`domain/period_fold.py`.
Refuses to know: rollups, archives, and a group of all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tallygate.domain.catalog import Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.period import Figures, Group, MeterTotal, PeriodKey, PeriodState
from tallygate.domain.period_fold import (
    Carried,
    Fold,
    FoldedAdjustment,
    Quantity,
    carried_into,
    changes,
    fold,
    grouped,
)
from tallygate.domain.window import Window
from tallygate.ports.period import Adjustment, SealedRevision
from tallygate.testing.period_books import (
    BEFORE_ALL_US,
    PeriodBooks,
    PeriodRow,
    allocated,
    figures_of,
    start_of,
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which events count: late ones of the period up to revision `own`, others' by `until_us`."""

    rule: Meter
    key: PeriodKey
    own: int
    until_us: int | None = None


class FoldBooks(PeriodBooks):
    """The `PeriodFolds` port over the books of periods."""

    async def fold(self, revision: SealedRevision) -> Fold:
        """Return what is to be frozen of a sealed revision. See the port."""
        self._answer()
        key, number = revision.span.key, revision.revision
        totals: list[MeterTotal] = []
        for rule in self._rules_of(key):
            asked = _Asked(rule, key, number)
            before = self._told(asked, number - 1)
            carried = _carried_of(before) if number > 1 else self._carried(asked)
            totals += self._fold(asked, carried)
        adjustments: list[FoldedAdjustment] = []
        reviews = self._reviews.get(key, set()) if number == 1 else set()
        for closed, meter in sorted(reviews, key=lambda each: (each[0].start_us, each[1])):
            row = self._rows.get(closed)
            made = len(row.revisions) if row is not None else 0
            asked = _Asked(self._rules[closed, meter], closed, made, key.start_us)
            adjustments += self._changes(asked, self._fold(asked, self._carried(asked)))
        return Fold(totals, adjustments)

    async def fold_again(self, revision: SealedRevision) -> Fold:
        """Return the same of a closed revision, by what was frozen with it. See the port."""
        self._answer()
        key, number = revision.span.key, revision.revision
        totals: list[MeterTotal] = []
        for rule in self._rules_of(key):
            asked = _Asked(rule, key, number)
            totals += self._fold(asked, _carried_of(self._told(asked, number)))
        adjustments: list[FoldedAdjustment] = []
        for made in self._folded.get(key, ()) if number == 1 else ():
            closed = PeriodKey(key.tenant_id, _place_of(made.closed_start_us))
            asked = _Asked(self._rules[closed, made.meter], closed, made.revision, key.start_us)
            now = self._fold(asked, {made.group: made.carried or 0})
            adjustments += [each for each in self._changes(asked, now) if each.group == made.group]
        return Fold(totals, adjustments)

    async def archived(self, revision: SealedRevision) -> bool:
        """Say that nothing is in an archive."""
        self._answer()
        return False

    def _rules_of(self, key: PeriodKey) -> list[Meter]:
        found = [rule for (of, _), rule in self._rules.items() if of == key]
        return sorted(found, key=lambda rule: rule.name)

    def _told(self, asked: _Asked, number: int) -> list[MeterTotal]:
        known = self._totals.get((asked.key, number), [])
        return [each for each in known if each.meter == asked.rule.name]

    def _fold(self, asked: _Asked, carried: Carried) -> list[MeterTotal]:
        return fold(asked.rule, self._covered(asked), self._window(asked), carried)

    def _carried(self, asked: _Asked) -> Carried:
        if start_of(asked.key) is None:
            return {}
        events = [
            each
            for each in self._events(asked.key.tenant_id)
            if each.meter == asked.rule.name and each.event_time_us < asked.key.start_us
        ]
        return carried_into(asked.rule, events, asked.key.start_us)

    def _changes(self, asked: _Asked, now: Sequence[MeterTotal]) -> list[FoldedAdjustment]:
        billed: dict[Group, Quantity] = {}
        for total in self._told(asked, asked.own):
            billed[total.group] = total.quantity
        for key, made in self._adjusted.items():
            for each, _, _ in made:
                same = (each.closed_start_us, each.meter) == (
                    start_of(asked.key),
                    asked.rule.name,
                )
                before = key.start_us < (asked.until_us or 0)
                if same and before and key.tenant_id == asked.key.tenant_id:
                    billed[each.group] = billed.get(each.group, 0) + each.quantity
        late = [
            each.event
            for each in self._late.values()
            if each.event.tenant_id == asked.key.tenant_id
            and each.event.meter == asked.rule.name
            and (each.closed.start_us if each.closed else None) == start_of(asked.key)
            and allocated(each) == (asked.until_us, 1)
        ]
        figures = {group: figures_of(events) for group, events in grouped(asked.rule, late).items()}
        of = FoldedAdjustment(
            asked.rule.name,
            asked.rule.aggregation,
            (),
            0,
            Figures(),
            start_of(asked.key),
            asked.own,
        )
        return changes(now, billed, figures, of=of)

    def _covered(self, asked: _Asked) -> list[UsageEvent]:
        """Return the events of a meter that a period's number is made of."""
        return [
            event
            for event in self._events(asked.key.tenant_id)
            if event.meter == asked.rule.name and self._counts(asked, event)
        ]

    def _counts(self, asked: _Asked, event: UsageEvent) -> bool:
        late = self._late.get((event.tenant_id, event.event_id))
        until_us = asked.until_us
        elsewhere = late is not None and until_us is not None and late.place.start_us <= until_us
        if start_of(asked.key) is None:
            return elsewhere and late is not None and late.closed is None
        if not self._window(asked).holds(event.event_time_us):
            return False
        if late is None:
            return True
        if late.place.start_us == asked.key.start_us:
            return late.place.revision <= asked.own
        return elsewhere

    def _window(self, asked: _Asked) -> Window:
        first_us = min(row.key.start_us for row in self._of(asked.key.tenant_id))
        row = self._rows.get(asked.key)
        return Window(asked.key.start_us, row.period.end_us if row is not None else first_us)

    def _freeze(self, key: PeriodKey, number: int, folded: Fold) -> None:
        """Keep what was folded of a revision."""
        self._totals[key, number] = sorted(
            [*self._totals.get((key, number), []), *folded.totals],
            key=lambda each: (each.meter, each.group),
        )
        for each in folded.adjustments:
            made = Adjustment(
                each.meter, each.group, each.quantity, each.figures.count, each.closed_start_us
            )
            self._adjusted.setdefault(key, []).append((made, each.figures, each.aggregation))
            self._folded.setdefault(key, []).append(each)

    def _waits(self, row: PeriodRow) -> bool:
        """Say whether periods are to be closed before it that it adjusts, or may."""
        return (
            row.period.revision == 1
            and bool(self._reviews.get(row.key))
            and any(
                each.key.start_us < row.key.start_us and each.period.state is PeriodState.SEALED
                for each in self._of(row.key.tenant_id)
            )
        )


def _carried_of(totals: Sequence[MeterTotal]) -> Carried:
    return {each.group: each.carried for each in totals if each.carried}


def _place_of(start_us: int | None) -> int:
    return BEFORE_ALL_US if start_us is None else start_us
