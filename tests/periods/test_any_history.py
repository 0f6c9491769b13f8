"""Whatever comes, however late, however often a period is opened again: nothing is billed twice."""

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.domain.catalog import LatePolicy
from tallygate.flow.verify_periods import VerifyPeriods
from tests.periods.months import ODD, STARTS, History, billed, due, meter_of
from tests.periods.world import PeriodWorld, period_world, tenant


async def live(world: PeriodWorld, random: Random, *, rolled: bool = False) -> History:
    """Let months pass with use, late use, refunds, corrections and reopenings."""
    history = History(world, meter_of(random), random)
    world.meters[ODD] = history.meter
    if world.fake is not None and history.meter.late_policy is LatePolicy.CORRECT:
        world.fake.correcting.add(ODD)
    await world.declare([tenant()])
    if rolled:
        await world.roll_up()
    await world.store(world.event(STARTS[0], 1))
    await world.run(STARTS[0])
    for month in range(len(STARTS) - 1):
        for _ in range(random.randint(1, 4)):
            await history.use(month)
            if random.random() < 0.3:
                await history.reopen()
            if random.random() < 0.3:
                await world.run(world.clock.us)
        # Late use of the last months is settled as the last one is sealed.
        if month == len(STARTS) - 2:
            await world.run(STARTS[month + 1] - 1)
        await history.close(month)
    return history


async def held_against_the_naive(world: PeriodWorld, random: Random, *, rolled: bool) -> None:
    """Hold what was billed in all against all events, and verify every revision."""
    history = await live(world, random, rolled=rolled)
    assert await billed(world) == due(history)
    verification = VerifyPeriods(world.reader, world.periods, world.folds)
    async for finding in verification.run(None, None):
        assert not finding.differs


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_frozen_and_adjusted_is_what_all_events_come_to(seed: int) -> None:
    """By period, group and any rule: totals and adjustments are the naive fold of all events."""

    async def run() -> None:
        async with period_world(None) as world:
            await held_against_the_naive(world, Random(seed), rolled=False)

    asyncio.run(run())


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize("seed", range(12))
async def test_so_it_is_in_the_ledger(world: PeriodWorld, seed: int, rolled: bool) -> None:
    """The same in Postgres, from events alone and with rollups of groups beside them."""
    await held_against_the_naive(world, Random(seed), rolled=rolled)
