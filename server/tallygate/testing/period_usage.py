"""Billable usage added up event by event, from the ledger in memory.

Guarantees: passes the same contract tests as the reader of rollups in Postgres.
Refuses to know: buckets, and rollups that are not whole.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.pieces import checked
from tallygate.domain.rollup import Shape, level_at, quantity, rolled
from tallygate.domain.usage_sum import value_of
from tallygate.domain.window import Window
from tallygate.ports.period_usage import Group, MeterUsage, WindowUsage
from tallygate.testing.ledger import FakeLedger

PAGE: Final = 2_000


@dataclass(slots=True)
class FakePeriodUsage:
    """The `PeriodUsage`, the `WindowReader` and the `MeterEvents` port over a `FakeLedger`.

    `meters` is what the catalog declares.
    """

    ledger: FakeLedger
    meters: Mapping[MeterName, Meter] = field(default_factory=dict)

    async def of_window(self, tenant_id: TenantId, from_us: int, to_us: int) -> list[MeterUsage]:
        """Return the usage of a window, by meter and group, sorted."""
        self.ledger.answer()
        window = checked(from_us, to_us)
        named = {event.meter for event in self.ledger.events.values()}
        return [
            MeterUsage(name, usage.group, usage.quantity, usage.count)
            for name in sorted(named)
            for meter in (self.meters.get(name, Meter(name)),)
            for usage in await self.of_windows(tenant_id, meter, [window], meter.group_by)
        ]

    async def of_windows(
        self,
        tenant_id: TenantId,
        meter: Meter,
        windows: Sequence[Window],
        group_by: Sequence[str] = (),
    ) -> list[WindowUsage]:
        """Return usage by window and group, sorted."""
        self.ledger.answer()
        for window in windows:
            checked(window.start_us, window.end_us)
        groups: dict[Group, list[UsageEvent]] = {}
        for event in self.ledger.events.values():
            if (event.tenant_id, event.meter) == (tenant_id, meter.name):
                group = tuple((name, value_of(event, name)) for name in group_by)
                groups.setdefault(group, []).append(event)
        return [
            WindowUsage(number, group, *found)
            for number, window in enumerate(windows)
            for group, events in sorted(groups.items())
            if (found := _usage(meter, events, window)) is not None
        ]

    async def events(
        self, tenant_id: TenantId, meter: MeterName, window: Window
    ) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events of a window in bounded lists, by their time and then their id."""
        self.ledger.answer()
        found = [
            event
            for event in self.ledger.events.values()
            if (event.tenant_id, event.meter) == (tenant_id, meter)
            and window.holds(event.event_time_us)
        ]
        found.sort(key=lambda event: (event.event_time_us, event.event_id))
        for start in range(0, len(found), PAGE):
            yield found[start : start + PAGE]


def _usage(
    meter: Meter, events: Sequence[UsageEvent], window: Window
) -> tuple[int | Decimal, int] | None:
    """Return quantity and count; None where nothing happened and nothing is carried."""
    inside = [event for event in events if window.holds(event.event_time_us)]
    shape = Shape(meter.aggregation, meter.unique_by)
    if meter.aggregation is not Aggregation.TIME_WEIGHTED:
        state = rolled(shape, inside)
        return (quantity(meter, state, window), state.count) if inside else None
    total, count = Decimal(0), 0
    # Levels of groups that are taken together are levels beside each other.
    for series in _series(meter, events):
        state = rolled(shape, [each for each in series if window.holds(each.event_time_us)])
        carried = level_at(rolled(shape, series).levels, window.start_us)
        area = quantity(meter, state, window, carried)
        total, count = total + area, count + state.count
    return (total, count) if total or inside else None


def _series(meter: Meter, events: Iterable[UsageEvent]) -> Iterable[list[UsageEvent]]:
    found: dict[tuple[str, ...], list[UsageEvent]] = {}
    for event in events:
        group = tuple(value_of(event, name) for name in meter.group_by)
        found.setdefault(group, []).append(event)
    return found.values()
