"""What usage of a meter comes to: states that events are added to, and that are merged.

Guarantees: events in any order, divided in any way, give the same state; a state gives the quantity
that all its events give when they are looked at one by one.
Refuses to know: tenants, and where states are kept.

A refund is dated as its event is, and has its dimensions. It takes from sums, from the units by
which a value counts as used, and from the level that its event set. It is no use of its own:
counts, the largest, the smallest, the latest and percentiles leave it out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, assert_never

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.sketch import amount_of, percentile, slot_of
from tallygate.domain.usage_sum import value_of
from tallygate.domain.window import Window

OTHER: Final = "__other__"
"""Each name's value in the group of all that came after a meter had its groups of a tenant."""
GROUPS_MAX: Final = 10_000
"""Groups of a tenant's meter, but for that one: more are a dimension that is an id."""

_OWN: Final = frozenset(
    {
        Aggregation.LATEST,
        Aggregation.UNIQUE,
        Aggregation.PERCENTILE,
        Aggregation.TIME_WEIGHTED,
    }
)
_Moment = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a meter is rolled up beyond count, sum, largest and smallest of all its events."""

    aggregation: Aggregation
    unique_by: str = ""
    group_by: tuple[str, ...] = ()


def shape_of(meter: Meter) -> Shape | None:
    """Return the meter's shape, None where the rollups that every meter has say it all.

    Which percentile is asked for is no part of it: any can be taken of the same sketch.
    """
    if not meter.group_by and meter.aggregation not in _OWN:
        return None
    return Shape(meter.aggregation, meter.unique_by, meter.group_by)


def group_of(shape: Shape, event: UsageEvent) -> tuple[str, ...]:
    """Return the event's values of what its meter is grouped by."""
    return tuple(value_of(event, name) for name in shape.group_by)


@dataclass(slots=True)
class Level:
    """What an event set, less what was refunded of it; `arrived` once the event itself is there."""

    amount: int
    arrived: bool


@dataclass(slots=True)
class Rollup:
    """The state of one group in one stretch of time. Amounts are 0 without an event that is one.

    `latest` is a time, an id and an amount. `parts` are units by value for `UNIQUE`, and events by
    slot for `PERCENTILE`. `levels` are by time and id.
    """

    count: int = 0
    sum: int = 0
    max: int = 0
    min: int = 0
    latest: tuple[int, str, int] | None = None
    parts: dict[str, int] = field(default_factory=dict)
    levels: dict[_Moment, Level] = field(default_factory=dict)

    def add(self, shape: Shape, event: UsageEvent) -> None:
        """Add an event that lies in the stretch."""
        amount, refund = event.amount, bool(event.refund_of)
        self.sum += amount
        if not refund:
            self._use(amount)
        match shape.aggregation:
            case Aggregation.LATEST if not refund:
                self._latest((event.event_time_us, event.event_id, amount))
            case Aggregation.UNIQUE:
                value = value_of(event, shape.unique_by)
                # An event without a value says nothing of how many there are.
                if value:
                    self.parts[value] = self.parts.get(value, 0) + amount
            case Aggregation.PERCENTILE if not refund:
                slot = str(slot_of(amount))
                self.parts[slot] = self.parts.get(slot, 0) + 1
            case Aggregation.TIME_WEIGHTED:
                of = event.refund_of or event.event_id
                self._level((event.event_time_us, of), Level(amount, not refund))

    def merge(self, other: "Rollup") -> None:
        """Add what another state has; that one stays as it is."""
        if other.count:
            self.max = max(self.max, other.max) if self.count else other.max
            self.min = min(self.min, other.min) if self.count else other.min
        self.count += other.count
        self.sum += other.sum
        if other.latest is not None:
            self._latest(other.latest)
        for key, units in other.parts.items():
            self.parts[key] = self.parts.get(key, 0) + units
        for moment, level in other.levels.items():
            self._level(moment, level)

    def _use(self, amount: int) -> None:
        self.max = max(self.max, amount) if self.count else amount
        self.min = min(self.min, amount) if self.count else amount
        self.count += 1

    def _latest(self, found: tuple[int, str, int]) -> None:
        if self.latest is None or found > self.latest:
            self.latest = found

    def _level(self, moment: _Moment, found: Level) -> None:
        before = self.levels.get(moment, Level(0, False))
        self.levels[moment] = Level(before.amount + found.amount, before.arrived or found.arrived)


def quantity(meter: Meter, state: Rollup, window: Window, carried: int = 0) -> int | Decimal:
    """Return what the events of a window come to. `carried` is the level at its start."""
    match meter.aggregation:
        case Aggregation.COUNT:
            return state.count
        case Aggregation.SUM:
            return state.sum
        case Aggregation.MAX:
            return state.max
        case Aggregation.MIN:
            return state.min
        case Aggregation.LATEST:
            return state.latest[2] if state.latest else 0
        case Aggregation.UNIQUE:
            return sum(units > 0 for units in state.parts.values())
        case Aggregation.PERCENTILE:
            counts = {int(slot): events for slot, events in state.parts.items()}
            return amount_of(percentile(counts, meter.percentile_ppm)) if counts else 0
        case Aggregation.TIME_WEIGHTED:
            return in_seconds(_area(state.levels, window, carried))
        case _:
            assert_never(meter.aggregation)


def level_at(levels: Mapping[_Moment, Level], instant_us: int) -> int:
    """Return the level just before an instant: the last that was set, 0 before the first."""
    before = [
        moment for moment, level in levels.items() if level.arrived and moment[0] < instant_us
    ]
    return levels[max(before)].amount if before else 0


def rolled(shape: Shape, events: Iterable[UsageEvent]) -> Rollup:
    """Return the state of events."""
    state = Rollup()
    for event in events:
        state.add(shape, event)
    return state


def in_seconds(area_us: int) -> Decimal:
    """Return units times microseconds as units times seconds, with all their digits."""
    sign, digits, _ = Decimal(area_us).as_tuple()
    return Decimal((sign, digits, -6))


def digits(quantity: int | Decimal) -> str:
    """Return a quantity with all its digits, and no more."""
    if isinstance(quantity, int):
        return str(quantity)
    whole, _, rest = f"{quantity:f}".partition(".")
    rest = rest.rstrip("0")
    return f"{whole}.{rest}" if rest else whole


def _area(levels: Mapping[_Moment, Level], window: Window, carried: int) -> int:
    """Return units times microseconds: each level holds until the next, the last to the end."""
    area, at_us, level = 0, window.start_us, carried
    for moment in sorted(moment for moment, found in levels.items() if found.arrived):
        area += level * (moment[0] - at_us)
        at_us, level = moment[0], levels[moment].amount
    return area + level * (window.end_us - at_us)
