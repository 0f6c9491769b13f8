"""Periods that bill meters whose totals are not frozen: asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US, Held, PeriodKey, PeriodState, unfrozen
from tallygate.ports.period import Sealing
from tests.periods.world import (
    ACME,
    CALLS,
    DECEMBER,
    EXACT,
    JANUARY,
    METERS,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    REQUESTS,
    PeriodWorld,
    period_world,
    tenant,
)

ODD = MeterName("odd")
LATEST = Meter(ODD, Aggregation.LATEST)
LEVELS = Meter(ODD, Aggregation.TIME_WEIGHTED)
EACH = [
    LATEST,
    LEVELS,
    Meter(ODD, Aggregation.UNIQUE, unique_by="user"),
    Meter(ODD, Aggregation.PERCENTILE, percentile_ppm=950_000),
    Meter(ODD, group_by=("region",)),
    Meter(ODD, Aggregation.MAX, group_by=("region",)),
]


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def world(dsn: str | None) -> AsyncIterator[PeriodWorld]:
    """Each kind of ledger, and what closes its periods."""
    async with period_world(dsn) as lent:
        yield lent


async def held(world: PeriodWorld, start_us: int) -> tuple[PeriodState, Held | None, int]:
    """Return how far a period is, why it is held, and its revision."""
    period = await world.reader.period(ACME, start_us)
    assert period is not None
    return period.state, period.held, period.revision


@pytest.mark.parametrize("meter", EACH, ids=lambda each: f"{each.aggregation}{len(each.group_by)}")
async def test_a_period_with_such_usage_is_held(world: PeriodWorld, meter: Meter) -> None:
    """It is told once, stays unsealed whatever an operator says, and keeps those after it open."""
    world.meters[ODD] = meter
    await world.closed_october(world.event(MID_OCTOBER, 5, ODD), world.event(MID_OCTOBER, 7))
    assert await held(world, OCTOBER) == (PeriodState.GRACE, Held.METER_NOT_FROZEN, 0)
    assert await world.reader.totals(ACME, OCTOBER, 1) == []
    await world.desk.ask_close(world.asked(OCTOBER), accept_missing=True)
    assert (await world.run(DECEMBER + GRACE_US)).sealed == 0
    assert await held(world, OCTOBER) == (PeriodState.GRACE, Held.METER_NOT_FROZEN, 0)
    assert (await held(world, NOVEMBER))[0] is PeriodState.GRACE
    assert await world.kinds() == ["period.held"]


async def test_others_are_closed_meanwhile(world: PeriodWorld) -> None:
    """A meter that is declared and not used holds nobody, and neither does another's usage."""
    world.meters[ODD] = LATEST
    await world.declare([tenant(), tenant(name="other")])
    await world.store(
        world.event(MID_OCTOBER, 5), world.event(MID_OCTOBER, 5, ODD, tenant_id="other")
    )
    await world.run(NOVEMBER)
    counts = await world.run(NOVEMBER + GRACE_US)
    assert (counts.held, counts.closed) == (1, 1)
    assert await world.bill(OCTOBER) == {REQUESTS: 5}


async def test_only_a_level_lasts_into_the_next_period(world: PeriodWorld) -> None:
    """Usage of one month holds that month; a level that it set holds each month after it."""
    world.meters[ODD] = Meter(ODD)
    await world.closed_october(world.event(MID_OCTOBER, 5, ODD))
    assert await world.bill(OCTOBER) == {ODD: 5}
    world.meters[ODD] = LEVELS
    await world.declare()
    assert (await world.run(DECEMBER + GRACE_US)).held == 1
    assert (await held(world, NOVEMBER))[1] is Held.METER_NOT_FROZEN
    world.meters[ODD] = LATEST
    await world.declare()
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1


async def test_what_can_be_frozen_again_is_closed(world: PeriodWorld) -> None:
    """Once the catalog says a sum, the period is sealed by that, without anybody's doing."""
    world.meters[ODD] = LATEST
    await world.closed_october(world.event(MID_OCTOBER, 5, ODD), world.event(MID_OCTOBER, 6, ODD))
    world.meters[ODD] = Meter(ODD)
    await world.declare()
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1
    assert await held(world, OCTOBER) == (PeriodState.CLOSED, None, 1)
    assert await world.bill(OCTOBER) == {ODD: 11}


@pytest.mark.parametrize("meter", EACH, ids=lambda each: f"{each.aggregation}{len(each.group_by)}")
async def test_a_late_event_holds_the_period_that_bills_it(
    world: PeriodWorld, meter: Meter
) -> None:
    """The closed period stays; the next one would bill what nobody can freeze."""
    world.meters[ODD] = meter
    await world.closed_october(world.event(MID_OCTOBER, 5))
    before = await world.reader.totals(ACME, OCTOBER, 1)
    stored = await world.store(world.event(MID_OCTOBER, 4, ODD), world.event(MID_NOVEMBER, 1))
    assert stored.late == {"next_period": 1}
    assert (await world.run(DECEMBER + GRACE_US)).held == 1
    assert await held(world, NOVEMBER) == (PeriodState.GRACE, Held.METER_NOT_FROZEN, 0)
    assert await held(world, OCTOBER) == (PeriodState.CLOSED, None, 1)
    assert await world.reader.totals(ACME, OCTOBER, 1) == before
    assert await world.reader.adjustments(ACME, NOVEMBER, 1) == []


async def test_what_was_frozen_is_adjusted_as_it_was(world: PeriodWorld) -> None:
    """Late events of a period are billed by the aggregation that its meter was frozen with."""
    await world.closed_october(world.event(MID_OCTOBER, 5, CALLS))
    world.meters[CALLS] = Meter(CALLS, Aggregation.PERCENTILE, percentile_ppm=500_000)
    await world.declare()
    await world.store(world.event(MID_OCTOBER, 9, CALLS), world.event(MID_NOVEMBER, 2))
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    assert await world.bill(NOVEMBER) == {CALLS: 1, REQUESTS: 2}


async def test_a_correction_that_cannot_be_frozen_waits(world: PeriodWorld) -> None:
    """The closed revision stands, later periods are closed, and it is made once it can be."""
    world.meters[EXACT] = replace(METERS[EXACT], aggregation=Aggregation.LATEST)
    await world.closed_october(world.event(MID_OCTOBER, 5))
    assert (await world.store(world.event(MID_OCTOBER, 4, EXACT))).late == {"correct": 1}
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    assert await held(world, OCTOBER) == (PeriodState.CLOSED, None, 1)
    assert await held(world, NOVEMBER) == (PeriodState.CLOSED, None, 1)
    world.meters[EXACT] = METERS[EXACT]
    await world.declare()
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    assert await world.bill(OCTOBER, 2) == {REQUESTS: 5, EXACT: 4}


async def test_a_correction_of_what_was_frozen_is_made(world: PeriodWorld) -> None:
    """Whatever its meter has become, the next revision adds up as the first one did."""
    await world.closed_october(world.event(MID_OCTOBER, 5, EXACT))
    world.meters[EXACT] = replace(METERS[EXACT], aggregation=Aggregation.LATEST)
    await world.declare()
    await world.store(world.event(MID_OCTOBER, 3, EXACT))
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1
    assert await world.bill(OCTOBER, 2) == {EXACT: 8}


async def test_a_reopened_period_is_held_by_what_came_for_it(world: PeriodWorld) -> None:
    """Its revision stands, and the next one waits for what cannot be frozen."""
    world.meters[ODD] = LATEST
    await world.closed_october(world.event(MID_OCTOBER, 5))
    await world.desk.reopen(world.asked(OCTOBER), NOVEMBER + GRACE_US)
    assert (await world.store(world.event(MID_OCTOBER, 2, ODD))).late == {"reopened": 1}
    assert (await world.run(NOVEMBER + GRACE_US)).held == 1
    assert await held(world, OCTOBER) == (PeriodState.GRACE, Held.METER_NOT_FROZEN, 1)
    assert await world.bill(OCTOBER) == {REQUESTS: 5}


async def test_usage_that_comes_while_it_is_judged_is_seen(world: PeriodWorld) -> None:
    """Sealing asks again: a period that was due without such usage is left as it is with it."""
    world.meters[ODD] = LATEST
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    now_us, others = NOVEMBER + GRACE_US, unfrozen(world.meters.values())
    (due,) = await world.periods.due(now_us, 9, others)
    assert not due.unfrozen
    await world.store(world.event(MID_OCTOBER, 6, ODD))
    key = PeriodKey(ACME, OCTOBER)
    aggregations = {each.name: each.aggregation for each in world.meters.values()}
    sealed = await world.periods.seal(Sealing([key], aggregations, now_us, unfrozen=others))
    assert sealed.keys == []
    (due,) = await world.periods.due(JANUARY, 9, others)
    assert due.unfrozen
