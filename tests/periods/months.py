"""Months of a tenant at random, and what a naive reader makes of all their events.

Guarantees: the naive fold knows no periods' books, no rollups and no rules of ours but the text of
`docs/meters.md`; a history is the same for the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from random import Random

from tallygate.domain.catalog import Aggregation, LatePolicy, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US, Group, PeriodState
from tallygate.domain.window import HOUR_US, SECOND_US, Window
from tests.periods.world import ACME, DECEMBER, JANUARY, NOVEMBER, OCTOBER, PeriodWorld, at

ODD = MeterName("odd")
FEBRUARY, MARCH = at("2027-02-01"), at("2027-03-01")
STARTS = (OCTOBER, NOVEMBER, DECEMBER, JANUARY, FEBRUARY, MARCH)
KINDS = (
    Meter(ODD, Aggregation.LATEST),
    Meter(ODD, Aggregation.TIME_WEIGHTED),
    Meter(ODD, Aggregation.UNIQUE, unique_by="user"),
    Meter(ODD, Aggregation.PERCENTILE, percentile_ppm=750_000),
    Meter(ODD, Aggregation.MAX),
    Meter(ODD, Aggregation.MIN),
    Meter(ODD),
    Meter(ODD, Aggregation.COUNT),
)


@dataclass(slots=True)
class History:
    """What has been stored of the meter, and what of it can be taken back."""

    world: PeriodWorld
    meter: Meter
    random: Random
    events: list[UsageEvent] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    sealed: bool = False

    async def use(self, month: int) -> None:
        """Store some uses and refunds of the months up to this one, and some from before all."""
        batch: list[UsageEvent] = []
        for _ in range(self.random.randint(1, 4)):
            of = self._refundable() if self.random.random() < 0.25 else None
            batch.append(self._use(month) if of is None else self._refund(of))
        self.events += batch
        await self.world.store(*batch)

    async def close(self, month: int) -> None:
        """Let a month come to its end, and its grace."""
        await self.world.run(STARTS[month + 1])
        await self.world.run(STARTS[month + 1] + GRACE_US)
        self.sealed = True

    async def reopen(self) -> None:
        """Open one of the closed months again, for an hour."""
        closed = [each for each in await self.world.all() if each.state is PeriodState.CLOSED]
        if closed:
            asked = self.world.asked(self.random.choice(closed).start_us)
            await self.world.desk.reopen(asked, self.world.clock.us + HOUR_US)

    def _use(self, month: int) -> UsageEvent:
        early = self.sealed and self.random.random() < 0.1
        start_us = OCTOBER - HOUR_US if early else STARTS[self.random.randint(0, month)]
        # Few instants and few values, so that they meet.
        at_us = start_us + self.random.choice((0, 1, 30 * SECOND_US, HOUR_US - 1, HOUR_US - 2))
        dimensions = {name: self.random.choice(("ann", "bob", "")) for name in ("user", "region")}
        used = self.world.event(at_us, self.random.randint(1, 9), ODD, dimensions=dimensions)
        self.left[used.event_id] = used.amount
        return used

    def _refund(self, of: UsageEvent) -> UsageEvent:
        amount = self.random.randint(1, self.left[of.event_id])
        self.left[of.event_id] -= amount
        return self.world.event(
            of.event_time_us, -amount, ODD, dimensions=of.dimensions, refund_of=of.event_id
        )

    def _refundable(self) -> UsageEvent | None:
        found = [each for each in self.events if self.left.get(each.event_id)]
        return self.random.choice(found) if found else None


def meter_of(random: Random) -> Meter:
    """Return a meter of any kind, grouped or not, with either policy."""
    kind = random.choice(KINDS)
    group_by = random.choice(((), ("region",), ("region", "user")))
    policy = random.choice((LatePolicy.NEXT_PERIOD, LatePolicy.CORRECT))
    return Meter(
        ODD,
        kind.aggregation,
        unique_by=kind.unique_by,
        percentile_ppm=kind.percentile_ppm,
        group_by=group_by,
        late_policy=policy,
    )


def naive(meter: Meter, events: Sequence[UsageEvent], window: Window) -> dict[Group, Decimal]:
    """Return what events come to in a window, by group, looked at one by one."""
    groups: dict[Group, list[UsageEvent]] = {}
    for event in events:
        group = tuple((name, event.dimensions[name]) for name in meter.group_by)
        groups.setdefault(group, []).append(event)
    return {group: _number(meter, found, window) for group, found in groups.items()}


def _number(meter: Meter, events: Sequence[UsageEvent], window: Window) -> Decimal:
    inside = [each for each in events if window.holds(each.event_time_us)]
    uses = [each for each in inside if not each.refund_of]
    amounts = sorted(each.amount for each in uses)
    match meter.aggregation:
        case Aggregation.COUNT:
            return Decimal(len(uses))
        case Aggregation.SUM:
            return Decimal(sum(each.amount for each in inside))
        case Aggregation.MAX:
            return Decimal(amounts[-1] if amounts else 0)
        case Aggregation.MIN:
            return Decimal(amounts[0] if amounts else 0)
        case Aggregation.LATEST:
            uses.sort(key=lambda each: (each.event_time_us, each.event_id))
            return Decimal(uses[-1].amount if uses else 0)
        case Aggregation.PERCENTILE:
            passed = [n for n in range(1, len(amounts) + 1) if n * 4 >= len(amounts) * 3]
            return Decimal(amounts[passed[0] - 1] if amounts else 0)
        case Aggregation.UNIQUE:
            users = {each.dimensions["user"] for each in inside} - {""}
            units = {
                user: sum(each.amount for each in inside if each.dimensions["user"] == user)
                for user in users
            }
            return Decimal(sum(found > 0 for found in units.values()))
        case _:
            return _area(events, window)


def _area(events: Sequence[UsageEvent], window: Window) -> Decimal:
    uses = sorted(
        (each for each in events if not each.refund_of),
        key=lambda each: (each.event_time_us, each.event_id),
    )
    area = 0
    ends = [each.event_time_us for each in uses[1:]] + [window.end_us]
    for each, until_us in zip(uses, ends, strict=True):
        level = each.amount + sum(
            other.amount for other in events if other.refund_of == each.event_id
        )
        begin = max(each.event_time_us, window.start_us)
        area += level * max(0, min(until_us, window.end_us) - begin)
    return Decimal(area) / 1_000_000


async def billed(world: PeriodWorld) -> dict[tuple[int | None, Group], Decimal]:
    """Return what each period was billed of the meter in all: its newest totals, adjustments."""
    found: dict[tuple[int | None, Group], Decimal] = {}
    for period in await world.all():
        place = (ACME, period.start_us, period.revision)
        for total in await world.reader.totals(*place):
            if total.meter == ODD:
                key = (period.start_us, total.group)
                found[key] = found.get(key, Decimal(0)) + total.quantity
        for late in await world.reader.adjustments(*place):
            if late.meter == ODD:
                of = (late.closed_start_us, late.group)
                found[of] = found.get(of, Decimal(0)) + late.quantity
    return {key: number for key, number in found.items() if number}


def due(history: History) -> dict[tuple[int | None, Group], Decimal]:
    """Return what each period should be billed of, by all its events."""
    events = history.events
    windows: list[tuple[int | None, Window]] = [(None, Window(OCTOBER - HOUR_US, OCTOBER))]
    windows += [(start, Window(start, end)) for start, end in pairwise(STARTS)]
    return {
        (start_us, group): number
        for start_us, window in windows
        for group, number in naive(history.meter, events, window).items()
        if number
    }
