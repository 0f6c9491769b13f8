"""Meters that take more than figures, frozen: asked of the fake and of Postgres alike."""

from dataclasses import replace
from decimal import Decimal

import pytest

from tallygate.domain.catalog import LatePolicy, Meter
from tallygate.domain.period import GRACE_US, PeriodState
from tallygate.domain.window import DAY_US, HOUR_US, SECOND_US
from tallygate.flow.verify_periods import VerifyPeriods
from tests.periods.folded import (
    BY_REGION,
    LATEST,
    LEVELS,
    MEDIAN,
    PEAKS,
    UNIQUE,
    Numbers,
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
    DECEMBER,
    EXACT,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PeriodWorld,
    tenant,
)

__all__ = ["dsn", "kind", "rolled", "world"]


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
