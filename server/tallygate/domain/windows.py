"""The windows that usage is asked by: tumbling, sliding, and sessions of events.

Guarantees: windows come in the order of their starts; tumbling ones cover what was asked for once,
the first and the last cut to it.
Refuses to know: where usage is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from tallygate.domain.catalog import Meter
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.rollup import Rollup, Shape, quantity
from tallygate.domain.usage_sum import value_of
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Calendar,
    Period,
    Window,
    window_at,
)

FIXED_US: Final = {"minute": MINUTE_US, "hour": HOUR_US, "day": DAY_US}
TUMBLING: Final = ("total", *FIXED_US, "period")


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows one after the other: the whole, or each minute, hour or day of UTC, or period."""

    by: str = "total"


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of `length_us` that begin every `step_us`."""

    length_us: int
    step_us: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """Windows of events, each at most `gap_us` after the one before."""

    gap_us: int


Division: TypeAlias = Tumbling | Sliding | Sessions


def tumbling(by: str, calendar: Calendar, whole: Window) -> Iterator[Window]:
    """Iterate over the windows that `whole` is divided into; periods are those of the calendar."""
    if by == "total":
        yield whole
        return
    start_us = whole.start_us
    while start_us < whole.end_us:
        if by == "period":
            end_us = window_at(Period.BILLING_PERIOD, calendar, start_us).end_us
        else:
            end_us = start_us - start_us % FIXED_US[by] + FIXED_US[by]
        yield Window(start_us, min(end_us, whole.end_us))
        start_us = end_us


def sliding(of: Sliding, whole: Window) -> Iterator[Window]:
    """Iterate over the windows that lie in `whole`, from its start on."""
    start_us = whole.start_us
    while start_us + of.length_us <= whole.end_us:
        yield Window(start_us, start_us + of.length_us)
        start_us += of.step_us


def checked_sliding(of: Sliding) -> Sliding:
    """Return it if it is of whole minutes. Raises `InvalidField`."""
    for name, value_us in (("sliding", of.length_us), ("step", of.step_us)):
        if value_us <= 0 or value_us % MINUTE_US:
            raise InvalidField("must be whole minutes, at least one", field=name)
    return of


Group: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """Events of a group that follow each other closely, and what they come to."""

    window: Window
    group: Group
    quantity: int | Decimal
    count: int


@dataclass(slots=True)
class SessionsOf:
    """Finds the sessions of a meter, by group, as its events come in the order of their time.

    A session ends its gap after its last event. A refund is dated as its event, so it is in the
    same session, and is none by itself.
    """

    meter: Meter
    gap_us: int
    group_by: Sequence[str] = ()
    _open: dict[Group, tuple[int, int, Rollup]] = field(default_factory=dict)

    def add(self, events: Iterable[UsageEvent]) -> Iterator[Session]:
        """Add events; iterate over the sessions that have ended by then."""
        shape = Shape(self.meter.aggregation, self.meter.unique_by)
        for event in events:
            group = tuple(value_of(event, name) for name in self.group_by)
            at_us = event.event_time_us
            first_us, last_us, state = self._open.get(group, (at_us, at_us, Rollup()))
            if at_us - last_us > self.gap_us:
                yield self._ended(group)
                first_us, state = at_us, Rollup()
            state.add(shape, event)
            self._open[group] = (first_us, at_us, state)

    def rest(self) -> Iterator[Session]:
        """Iterate over the sessions of which no event can come any more."""
        for group in list(self._open):
            yield self._ended(group)

    def _ended(self, group: Group) -> Session:
        first_us, last_us, state = self._open.pop(group)
        window = Window(first_us, last_us + self.gap_us)
        return Session(window, group, quantity(self.meter, state, window), state.count)
