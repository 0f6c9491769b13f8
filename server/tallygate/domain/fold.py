"""Usage of a selection, added up event by event in the order of their time.

Guarantees: what comes out is what the meter's rollups give for the same events; what is kept is
one state per group, however many events there are, and bounded.
Refuses to know: where events are kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import TooManyItems
from tallygate.domain.event import UsageEvent
from tallygate.domain.invoice import Group, Selection
from tallygate.domain.rollup import GROUPS_MAX, Rollup, Shape, in_seconds, quantity
from tallygate.domain.usage_sum import value_of
from tallygate.domain.window import Window

# Some hundred megabytes of different values. Whole minutes are read from rollups, without a bound.
VALUES_MAX: Final = 1_000_000

Series: TypeAlias = tuple[str, ...]
"""The value of a selection's `per`, if it has one, then those of its series."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a group's events come to; `count` is of those that are no refunds."""

    group: Group
    quantity: Decimal
    count: int


def series_names(selection: Selection) -> tuple[str, ...]:
    """Return the names that a selection's levels are told apart by."""
    return (*((selection.per,) if selection.per else ()), *selection.series)


def selects(selection: Selection, event: UsageEvent) -> bool:
    """Say whether an event of the selection's meter is one of those that it is for."""
    return all(value_of(event, key) in among for key, among in selection.where)


@dataclass(slots=True)
class _Levels:
    """A level as it is at `at_us`, what it has come to, and what is set at the newest instant."""

    at_us: int
    level: int = 0
    area: int = 0
    count: int = 0
    used: bool = False
    newest_us: int = 0
    newest: Rollup = field(default_factory=Rollup)

    def add(self, shape: Shape, event: UsageEvent) -> None:
        """Add an event that is not before the last one."""
        if event.event_time_us != self.newest_us:
            self.settle()
            self.newest_us = event.event_time_us
        self.newest.add(shape, event)
        self.used = True

    def settle(self) -> None:
        """Have the level follow what was set at the newest instant: the last id's counts.

        A refund is dated as its event, so that all that changes an instant is there by then.
        """
        levels = {moment: each for moment, each in self.newest.levels.items() if each.arrived}
        if levels:
            self.area += self.level * (self.newest_us - self.at_us)
            self.at_us, self.level = self.newest_us, levels[max(levels)].amount
        self.count += self.newest.count
        self.newest = Rollup()

    def until(self, end_us: int) -> int:
        """Return units times microseconds up to an instant."""
        self.settle()
        return self.area + self.level * (end_us - self.at_us)


class Fold:
    """Adds up a selection's usage in a window. `carried` are the levels at its start, by series."""

    def __init__(
        self,
        selection: Selection,
        window: Window,
        carried: Mapping[Series, int] | None = None,
        values_max: int = VALUES_MAX,
    ) -> None:
        self._selection = selection
        self._window = window
        self._shape = Shape(selection.aggregation, selection.unique_by)
        self._names = series_names(selection)
        self._values_left = values_max
        self._states: dict[str, Rollup] = {}
        self._levels: dict[Series, _Levels] = {}
        for series, level in (carried or {}).items():
            self._levels[series] = _Levels(window.start_us, level)

    def add(self, events: Iterable[UsageEvent]) -> None:
        """Add events of the window, by time and id; others than the selection's are left out.

        Raises `TooManyItems` for too many groups, or different values.
        """
        for event in events:
            if not selects(self._selection, event):
                continue
            if self._shape.aggregation is Aggregation.TIME_WEIGHTED:
                self._level(event)
            else:
                self._state(event)

    def folded(self) -> Iterator[Folded]:
        """Iterate over groups with usage, or a level that was carried in, by their values."""
        if self._shape.aggregation is Aggregation.TIME_WEIGHTED:
            yield from self._areas()
            return
        of = self._selection
        meter = Meter(
            of.meter,
            of.aggregation,
            unique_by=of.unique_by,
            percentile_ppm=of.percentile_ppm,
        )
        for value, state in sorted(self._states.items()):
            units = Decimal(quantity(meter, state, self._window))
            yield Folded(self._group(value), units, state.count)

    def _state(self, event: UsageEvent) -> None:
        per = self._selection.per
        value = value_of(event, per) if per else ""
        state = self._states.get(value)
        if state is None:
            _bounded(len(self._states), per or "meter")
            state = self._states[value] = Rollup()
        before = len(state.parts)
        state.add(self._shape, event)
        self._values_left -= len(state.parts) - before
        if self._values_left < 0:
            message = "has too many different values to count them event by event"
            raise TooManyItems(message, field=self._shape.unique_by or "meter")

    def _level(self, event: UsageEvent) -> None:
        series = tuple(value_of(event, name) for name in self._names)
        levels = self._levels.get(series)
        if levels is None:
            _bounded(len(self._levels), self._selection.per or "group_by")
            levels = self._levels[series] = _Levels(self._window.start_us)
        levels.add(self._shape, event)

    def _areas(self) -> Iterator[Folded]:
        found: dict[str, tuple[int, int, bool]] = {}
        for series, levels in self._levels.items():
            value = series[0] if self._selection.per else ""
            area, count, used = found.get(value, (0, 0, False))
            area += levels.until(self._window.end_us)
            found[value] = (area, count + levels.count, used or levels.used)
        for value, (area, count, used) in sorted(found.items()):
            # Levels that refunds have brought to nothing, and that nothing set anew, are no usage.
            if area or used:
                yield Folded(self._group(value), in_seconds(area), count)

    def _group(self, value: str) -> Group:
        return ((self._selection.per, value),) if self._selection.per else ()


def _bounded(count: int, field: str) -> None:
    if count == GROUPS_MAX:
        raise TooManyItems(f"{field} has more than {GROUPS_MAX} values", field="per")
