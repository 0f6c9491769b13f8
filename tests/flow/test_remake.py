"""Rollups follow the catalog, and what lacks events is made whole in bounded steps."""

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Shape
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.flow.remake import (
    STEP_EVENTS_MAX,
    KeepRollups,
    MeterRollups,
    RemakeCounts,
    steps_of,
)
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.rollups import ShapeState, UsedDay
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.rollups import FakeRollups
from tests.usage_events import NOON_US, event

REQUESTS = MeterName("requests")
TODAY_US = NOON_US - NOON_US % DAY_US


class World:
    """A catalog, a ledger and rollups in memory."""

    def __init__(self) -> None:
        self.ledger = FakeLedger()
        self.rollups = FakeRollups(self.ledger)
        self.catalogs = FakeCatalogStore()
        self.lacking: list[int] = []
        self.keep = KeepRollups(self.rollups, self.catalogs, SystemClock(), self)

    def incomplete(self, meters: int) -> None:
        """Note what is told."""
        self.lacking.append(meters)

    async def declare(self, *meters: Meter) -> None:
        """Have a catalog of these meters in effect."""
        newest = await self.catalogs.newest()
        catalog = Catalog(meters={meter.name: meter for meter in meters})
        await self.catalogs.write(CatalogChange(catalog), newest.version)

    async def store(self, *days_ago: int) -> None:
        """Store an event on each of these days."""
        await self.ledger.persist(
            LedgerBatch(
                tuple(
                    event(number, event_time_us=NOON_US - days * DAY_US)
                    for number, days in enumerate(days_ago)
                )
            )
        )


async def test_without_a_catalog_nothing_is_changed() -> None:
    """A database that is new says nothing of what rollups there should be."""
    world = World()
    await world.rollups.switch(REQUESTS, Shape(Aggregation.LATEST))
    assert await world.keep.run_once() == RemakeCounts()
    assert [state.meter for state in await world.rollups.shapes()] == [REQUESTS]


async def test_shapes_follow_the_catalog() -> None:
    """A meter that groups gets one, another, and none when it does no more, or is gone."""
    world = World()
    await world.declare(Meter(REQUESTS, group_by=("region",)), Meter(MeterName("plain")))
    assert await world.keep.run_once() == RemakeCounts(switched=1)
    assert await world.rollups.shapes() == [
        ShapeState(REQUESTS, Shape(Aggregation.SUM, group_by=("region",)), True)
    ]
    assert not (await world.keep.run_once()).more
    await world.declare(Meter(REQUESTS), Meter(MeterName("seats"), Aggregation.LATEST))
    assert await world.keep.run_once() == RemakeCounts(switched=2)
    assert [state.meter for state in await world.rollups.shapes()] == ["seats"]
    await world.declare()
    await world.keep.run_once()
    assert await world.rollups.shapes() == []


async def test_a_meter_in_use_is_made_whole() -> None:
    """All its days, the oldest first, and then every day that is still to come."""
    world = World()
    await world.store(0, 3, 3)
    await world.declare(Meter(REQUESTS, Aggregation.LATEST))
    counts = await world.keep.run_once()
    assert (counts.switched, counts.steps) == (1, 1)
    assert await world.keep.states() == [MeterRollups(REQUESTS, True, 2, 0)]
    assert world.rollups.remade[0][1] == Window(TODAY_US - 3 * DAY_US, TODAY_US + DAY_US)
    assert not (await world.keep.run_once()).more
    assert world.lacking == [1, 0]


async def test_states_tell_what_is_missing() -> None:
    """How many days rollups have, and how many are to be made."""
    world = World()
    await world.store(0, 3)
    await world.rollups.switch(REQUESTS, Shape(Aggregation.LATEST))
    assert await world.keep.states() == [MeterRollups(REQUESTS, False, 2, 2)]


async def test_a_meter_is_made_anew_when_told() -> None:
    """All of it, or the hours asked for, also where it is whole."""
    world = World()
    await world.store(0, 3)
    await world.declare(Meter(REQUESTS, Aggregation.LATEST))
    noted: list[int] = []
    assert await world.keep.rebuild(REQUESTS, None, noted.append) == 1
    assert noted == [2]
    assert (await world.rollups.shapes())[0].whole
    hours = Window(NOON_US, NOON_US + HOUR_US)
    assert await world.keep.rebuild(REQUESTS, hours) == 1
    assert world.rollups.remade[-1] == (REQUESTS, hours)
    never = Window(NOON_US + 9 * DAY_US, NOON_US + 10 * DAY_US)
    assert await world.keep.rebuild(REQUESTS, never) == 0


@pytest.mark.parametrize(
    ("meter", "window", "error", "text"),
    [
        ("request", None, NotFound, "did you mean requests"),
        ("zzz", None, NotFound, "there is no meter 'zzz'"),
        ("plain", None, InvalidField, "no rollups of its own"),
        ("requests", Window(1, HOUR_US), InvalidField, "whole hour"),
        ("requests", Window(0, HOUR_US + 1), InvalidField, "whole hour"),
        ("requests", Window(0, 0), InvalidField, "after from"),
    ],
)
async def test_what_cannot_be_made_is_refused(
    meter: str, window: Window | None, error: type[InvalidField | NotFound], text: str
) -> None:
    """By the field at fault, with a guess at what was meant."""
    world = World()
    await world.declare(Meter(REQUESTS, Aggregation.LATEST), Meter(MeterName("plain")))
    with pytest.raises(error, match=text) as raised:
        await world.keep.rebuild(MeterName(meter), window)
    assert raised.value.field


def test_steps_read_a_bounded_number_of_events() -> None:
    """Days together while they are few, a day of many in hours; they adjoin, and miss none."""
    days = [UsedDay(n * DAY_US, events, False) for n, events in enumerate((10, 20, 10**6, 5, 6))]
    steps = list(steps_of(days))
    assert steps[0].hours == Window(0, 2 * DAY_US)
    assert len(steps) == 1 + 20 + 1
    assert all(step.events <= STEP_EVENTS_MAX for step in steps)
    ends = [0, *(step.hours.end_us for step in steps)]
    assert [step.hours.start_us for step in steps] == ends[:-1]
    assert ends[-1] == 5 * DAY_US
    assert all(step.hours.start_us % HOUR_US == 0 for step in steps)
    part = Window(DAY_US + HOUR_US, 2 * DAY_US + HOUR_US)
    inside = list(steps_of(days, part))
    assert (inside[0].hours.start_us, inside[-1].hours.end_us) == (part.start_us, part.end_us)


def test_a_day_is_divided_into_hours_at_most() -> None:
    """However many events it has."""
    assert len(list(steps_of([UsedDay(0, 10**9, False)]))) == 24
