"""Late events of meters that take more than figures: asked of the fake and of Postgres alike."""

import pytest

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.period import GRACE_US, Group
from tallygate.domain.window import HOUR_US, SECOND_US
from tests.periods.folded import (
    BY_REGION,
    LATEST,
    LEVELS,
    MEDIAN,
    ODD,
    PEAKS,
    UNIQUE,
    adjusted,
    dsn,
    frozen,
    kind,
    odd,
    region,
    rolled,
    used,
    verified,
    world,
)
from tests.periods.world import (
    ACME,
    CALLS,
    DECEMBER,
    JANUARY,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PeriodWorld,
)

__all__ = ["dsn", "kind", "rolled", "world"]


async def test_a_late_level_adjusts_every_period_it_lasts_through(
    world: PeriodWorld, rolled: bool
) -> None:
    """Those that were closed bill what they would have been, in the first that was not."""
    await odd(world, LEVELS, rolled=rolled)
    await world.closed_october(used(world, NOVEMBER - 100 * SECOND_US, 3))
    await world.run(DECEMBER + GRACE_US)
    before = await frozen(world, NOVEMBER)
    await world.store(used(world, NOVEMBER - 10 * SECOND_US, 5))
    await world.run(JANUARY + GRACE_US)
    assert await adjusted(world, DECEMBER) == [
        (OCTOBER, (), 2 * 10),
        (NOVEMBER, (), 2 * 30 * 86_400),
    ]
    assert await frozen(world, NOVEMBER) == before
    assert await frozen(world, DECEMBER) == {(): 5 * 31 * 86_400}
    (one, two) = await world.reader.adjustments(ACME, DECEMBER, 1)
    assert (one.count, two.count) == (1, 0)
    assert await verified(world) == 3


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        (LATEST, [((), 4)]),
        (UNIQUE, [((), 1)]),
        (MEDIAN, [((), 1)]),
        (BY_REGION, [(region("ann"), 6), (region("cid"), 9)]),
        (PEAKS, [(region("ann"), 1), (region("cid"), 9)]),
    ],
)
async def test_late_events_adjust_the_next_period(
    world: PeriodWorld,
    meter: Meter,
    expected: list[tuple[Group, int]],
    rolled: bool,
) -> None:
    """By how much the closed period's number would have been another, group by group."""
    await odd(world, meter, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    stored = await world.store(
        used(world, MID_OCTOBER - 1, 6, "ann"), used(world, MID_OCTOBER + 1, 9, "cid")
    )
    assert stored.late == {"next_period": 2}
    await world.run(DECEMBER + GRACE_US)
    found = await adjusted(world, NOVEMBER)
    assert found == [(OCTOBER, *each) for each in expected]
    assert await frozen(world, NOVEMBER) == {}
    assert await verified(world) == 2


async def test_what_changes_nothing_is_on_record(world: PeriodWorld, rolled: bool) -> None:
    """A late use of a value that was used bills 0, and the period's events are told with it."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    await world.store(used(world, MID_OCTOBER, 1, "ann"))
    await world.run(DECEMBER + GRACE_US)
    (found,) = await world.reader.adjustments(ACME, NOVEMBER, 1)
    assert (found.quantity, found.count, found.closed_start_us) == (0, 1, OCTOBER)


async def test_later_adjustments_are_of_what_is_left(world: PeriodWorld, rolled: bool) -> None:
    """Each is the number of by then, less the frozen one and all adjustments before."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    bob = used(world, MID_OCTOBER, 2, "bob")
    await world.store(bob, used(world, MID_OCTOBER, 1, "cid"))
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [(OCTOBER, (), 2)]
    await world.store(used(world, MID_OCTOBER, -2, "bob", refund_of=bob.event_id))
    await world.run(JANUARY + GRACE_US)
    assert await adjusted(world, DECEMBER) == [(OCTOBER, (), -1)]
    assert await verified(world) == 3


async def test_a_reopening_takes_back_what_was_adjusted(world: PeriodWorld, rolled: bool) -> None:
    """What a revision has in its own number is billed nowhere else."""
    await odd(world, PEAKS, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 9, "ann"))
    await world.store(used(world, MID_OCTOBER, 11, "ann"))
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [(OCTOBER, region("ann"), 2)]
    await world.desk.reopen(world.asked(OCTOBER), world.clock.us + HOUR_US)
    await world.store(used(world, MID_OCTOBER, 15, "ann"))
    await world.run(world.clock.us + HOUR_US)
    assert await frozen(world, OCTOBER, 2) == {region("ann"): 15}
    await world.run(JANUARY + GRACE_US)
    assert await adjusted(world, DECEMBER) == [(OCTOBER, region("ann"), -2)]
    assert await verified(world) == 4


async def test_so_does_one_of_a_plain_maximum(world: PeriodWorld) -> None:
    """Also where figures tell the number."""
    await odd(world, Meter(ODD, Aggregation.MAX), rolled=False)
    await world.closed_october(used(world, MID_OCTOBER, 9))
    await world.store(used(world, MID_OCTOBER, 11))
    await world.run(DECEMBER + GRACE_US)
    await world.desk.reopen(world.asked(OCTOBER), world.clock.us + HOUR_US)
    await world.store(used(world, MID_OCTOBER, 15))
    await world.run(world.clock.us + HOUR_US)
    assert await world.bill(OCTOBER, 2) == {ODD: 15}
    await world.run(JANUARY + GRACE_US)
    assert await world.bill(DECEMBER) == {ODD: -2}
    assert await verified(world) == 4


async def test_usage_before_the_first_period_is_adjusted(world: PeriodWorld, rolled: bool) -> None:
    """It belongs to no closed period; different values of it count by themselves."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    await world.store(used(world, OCTOBER - 1, 1, "ann"), used(world, OCTOBER - 2, 1, "bob"))
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [(None, (), 2)]
    await world.store(used(world, OCTOBER - 3, 1, "bob"), used(world, OCTOBER - 3, 1, "cid"))
    await world.run(JANUARY + GRACE_US)
    assert await adjusted(world, DECEMBER) == [(None, (), 1)]
    assert await verified(world) == 3


async def test_a_level_from_before_the_first_period_adjusts_it(
    world: PeriodWorld, rolled: bool
) -> None:
    """The time before is billed, and what the level comes to in the periods after it."""
    await odd(world, LEVELS, rolled=rolled)
    await world.closed_october(world.event(MID_OCTOBER, 1))
    await world.store(used(world, OCTOBER - 10 * SECOND_US, 2))
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [
        (None, (), 2 * 10),
        (OCTOBER, (), 2 * 31 * 86_400),
    ]
    assert await frozen(world, NOVEMBER) == {(): 2 * 30 * 86_400}
    assert await verified(world) == 2


async def test_a_meter_is_adjusted_as_it_was_frozen(world: PeriodWorld, rolled: bool) -> None:
    """Whatever it has become since, late events are billed by the rule of their period."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.closed_october(
        used(world, MID_OCTOBER, 5, "ann"), world.event(MID_OCTOBER, 5, CALLS)
    )
    world.meters[CALLS] = Meter(CALLS, Aggregation.PERCENTILE, percentile_ppm=500_000)
    await odd(world, Meter(ODD), rolled=rolled)
    await world.declare()
    await world.store(
        used(world, MID_OCTOBER, 9, "bob"),
        world.event(MID_OCTOBER, 9, CALLS),
        used(world, MID_NOVEMBER, 30, "ann"),
    )
    await world.run(DECEMBER + GRACE_US)
    assert await world.bill(NOVEMBER) == {ODD: 1 + 30, CALLS: 1}
    assert await verified(world) == 2


async def test_a_meter_that_came_late_has_a_rule_from_then_on(
    world: PeriodWorld, rolled: bool
) -> None:
    """Of a period that had none of it, the first late event decides how it is billed."""
    await odd(world, LATEST, rolled=rolled)
    await world.closed_october(world.event(MID_OCTOBER, 5))
    await world.store(used(world, MID_OCTOBER, 4))
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [(OCTOBER, (), 4)]
    await odd(world, Meter(ODD), rolled=rolled)
    await world.declare()
    await world.store(used(world, MID_OCTOBER + 1, 3))
    await world.run(JANUARY + GRACE_US)
    assert await adjusted(world, DECEMBER) == [(OCTOBER, (), -1)]
