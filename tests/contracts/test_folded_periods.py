"""Meters that take more than figures, frozen and adjusted: asked of the fake and of Postgres alike.

In Postgres it is asked both with rollups of groups and without, from events alone.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from tallygate.domain.catalog import Aggregation, LatePolicy, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US, Group, PeriodState
from tallygate.domain.window import DAY_US, HOUR_US, SECOND_US
from tallygate.flow.verify_periods import VerifyPeriods
from tests.periods.world import (
    ACME,
    CALLS,
    DECEMBER,
    EXACT,
    JANUARY,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PeriodWorld,
    period_world,
    tenant,
)

ODD = MeterName("odd")
LATEST = Meter(ODD, Aggregation.LATEST)
LEVELS = Meter(ODD, Aggregation.TIME_WEIGHTED)
UNIQUE = Meter(ODD, Aggregation.UNIQUE, unique_by="user")
MEDIAN = Meter(ODD, Aggregation.PERCENTILE, percentile_ppm=500_000)
BY_REGION = Meter(ODD, group_by=("region",))
PEAKS = Meter(ODD, Aggregation.MAX, group_by=("region",))
Numbers = dict[Group, int | Decimal]


@pytest.fixture(params=["fake", "postgres", "rollups"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which ledger, and what it keeps."""
    return str(request.param)


@pytest.fixture
def dsn(kind: str, request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return None if kind == "fake" else request.getfixturevalue("postgres_dsn")


@pytest.fixture
async def world(dsn: str | None) -> AsyncIterator[PeriodWorld]:
    """Each kind of ledger, and what closes its periods."""
    async with period_world(dsn) as lent:
        yield lent


@pytest.fixture
def rolled(kind: str) -> bool:
    """Whether rollups of groups are kept."""
    return kind == "rollups"


async def odd(world: PeriodWorld, meter: Meter, *, rolled: bool) -> None:
    """Have a meter, from before all usage."""
    world.meters[ODD] = meter
    if world.fake is not None and meter.late_policy is LatePolicy.CORRECT:
        world.fake.correcting.add(ODD)
    if rolled:
        await world.roll_up()


def used(world: PeriodWorld, at_us: int, amount: int, user: str = "", **more: object) -> UsageEvent:
    """Return a use of the meter by somebody, whose region has the same name."""
    return world.event(at_us, amount, ODD, dimensions={"user": user, "region": user}, **more)


async def frozen(world: PeriodWorld, start_us: int, revision: int = 1) -> Numbers:
    """Return what was frozen of the meter, by group."""
    totals = await world.reader.totals(ACME, start_us, revision)
    return {each.group: each.quantity for each in totals if each.meter == ODD}


async def adjusted(world: PeriodWorld, start_us: int) -> list[tuple[int | None, Group, object]]:
    """Return what a period adjusts of the meter."""
    found = await world.reader.adjustments(ACME, start_us, 1)
    return [
        (each.closed_start_us, each.group, each.quantity) for each in found if each.meter == ODD
    ]


async def verified(world: PeriodWorld) -> int:
    """Verify every revision, and return how many there are."""
    verification = VerifyPeriods(world.reader, world.periods, world.folds)
    findings = [each async for each in verification.run(None, None)]
    assert [each.differs for each in findings] == [()] * len(findings)
    return len(findings)


def region(name: str) -> Group:
    """Return the group of a region."""
    return (("region", name),)


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        (LATEST, {(): 7}),
        (UNIQUE, {(): 2}),
        (MEDIAN, {(): 5}),
        (BY_REGION, {region("ann"): 12, region("bob"): 3}),
        (PEAKS, {region("ann"): 7, region("bob"): 4}),
    ],
)
async def test_each_meter_is_frozen(
    world: PeriodWorld, meter: Meter, expected: Numbers, rolled: bool
) -> None:
    """A closed period has the one number of each meter, and of each group of one that groups."""
    await odd(world, meter, rolled=rolled)
    await world.closed_october(
        used(world, MID_OCTOBER, 5, "ann"),
        bob := used(world, MID_OCTOBER, 4, "bob"),
        used(world, MID_OCTOBER, -1, "bob", refund_of=bob.event_id),
        used(world, MID_OCTOBER + DAY_US, 7, "ann"),
        used(world, MID_NOVEMBER, 90, "cid"),
    )
    assert await frozen(world, OCTOBER) == expected
    period = await world.reader.period(ACME, OCTOBER)
    assert period is not None
    assert (period.state, period.held) == (PeriodState.CLOSED, None)
    assert await verified(world) == 1


async def test_a_level_lasts_into_the_periods_after(world: PeriodWorld, rolled: bool) -> None:
    """Units times seconds, to the end of the month and through the next one, with fractions."""
    await odd(world, LEVELS, rolled=rolled)
    at_us = NOVEMBER - 10 * SECOND_US - 1
    await world.closed_october(used(world, at_us, 3))
    assert await frozen(world, OCTOBER) == {(): Decimal("30.000003")}
    await world.run(DECEMBER + GRACE_US)
    assert await frozen(world, NOVEMBER) == {(): Decimal(3 * 30 * 86_400)}
    assert await verified(world) == 2


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


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        (LATEST, {(): 4}),
        (UNIQUE, {(): 2}),
        (BY_REGION, {region("ann"): 5, region("bob"): 4}),
        (LEVELS, {(): 5 * 3_600 + 4 * 16 * 86_400 + 4 * 46_800}),
    ],
)
async def test_corrections_are_whole(
    world: PeriodWorld, meter: Meter, expected: Numbers, rolled: bool
) -> None:
    """The next revision has the number of all that it covers; the first stays as it was."""
    await odd(world, replace(meter, late_policy=LatePolicy.CORRECT), rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    first = await frozen(world, OCTOBER)
    late = used(world, MID_OCTOBER + HOUR_US, 4, "bob")
    assert (await world.store(late)).late == {"correct": 1}
    await world.run(NOVEMBER + GRACE_US)
    assert await frozen(world, OCTOBER, 2) == expected
    assert await frozen(world, OCTOBER) == first
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == []
    assert await verified(world) == 3


async def test_a_revision_keeps_what_it_does_not_change(world: PeriodWorld, rolled: bool) -> None:
    """A correction of one meter has the numbers of all others as they were."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    await world.store(world.event(MID_OCTOBER, 4, EXACT), used(world, MID_OCTOBER, 1, "bob"))
    await world.run(NOVEMBER + GRACE_US)
    assert await frozen(world, OCTOBER, 2) == {(): 1}
    assert await verified(world) == 2


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


async def test_what_comes_between_sealing_and_closing_is_late(
    world: PeriodWorld, rolled: bool
) -> None:
    """A period is folded after its sealing, over just what that covers."""
    await odd(world, UNIQUE, rolled=rolled)
    await world.declare([tenant()])
    await world.store(used(world, MID_OCTOBER, 5, "ann"))
    await world.run(NOVEMBER)
    fold = world.folds.fold

    async def late_first(revision: object) -> object:
        if revision.span.key.start_us == OCTOBER:  # type: ignore[attr-defined]
            await world.store(used(world, MID_OCTOBER, 1, "bob"))
        return await fold(revision)  # type: ignore[arg-type]

    world.folds.fold = late_first  # type: ignore[method-assign,assignment]
    await world.run(NOVEMBER + GRACE_US)
    assert await frozen(world, OCTOBER) == {(): 1}
    await world.run(DECEMBER + GRACE_US)
    assert await adjusted(world, NOVEMBER) == [(OCTOBER, (), 1)]
    assert await verified(world) == 2


async def test_it_is_told_by_group(world: PeriodWorld, rolled: bool) -> None:
    """Closing says how many uses each group had, beside its number."""
    await odd(world, PEAKS, rolled=rolled)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"), used(world, MID_OCTOBER, 6))
    totals = await world.reader.totals(ACME, OCTOBER, 1)
    assert [(each.group, each.quantity, each.count) for each in totals] == [
        (region(""), 6, 1),
        (region("ann"), 5, 1),
    ]


async def test_a_total_that_is_edited_is_found(world: PeriodWorld) -> None:
    """Verifying folds every number again, and names the meter of one that differs."""
    await odd(world, UNIQUE, rolled=False)
    await world.closed_october(used(world, MID_OCTOBER, 5, "ann"))
    await world.store(used(world, MID_OCTOBER, 5, "bob"))
    await world.run(DECEMBER + GRACE_US)
    reader = world.reader

    class Edited:
        """A reader of books in which somebody has added one."""

        def __getattr__(self, name: str) -> object:
            return getattr(reader, name)

        async def frozen(self, *place: object) -> object:
            found = await reader.frozen(*place)  # type: ignore[arg-type]
            return [replace(each, folded=2) if each.folded == 1 else each for each in found]

        async def adjustments(self, *place: object) -> object:
            found = await reader.adjustments(*place)  # type: ignore[arg-type]
            return [replace(each, quantity=2) for each in found]

    verification = VerifyPeriods(Edited(), world.periods, world.folds)  # type: ignore[arg-type]
    found = [each.differs async for each in verification.run(None, None)]
    assert found == [("quantity of odd",), ("adjustment of odd",)]
