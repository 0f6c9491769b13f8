"""Worlds whose periods bill a meter that takes more than figures, and what is read of them.

Guarantees: each is asked of the fake, and of Postgres with rollups of groups and without them.
Refuses to know: what is asserted.
"""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tallygate.domain.catalog import Aggregation, LatePolicy, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import Group
from tallygate.flow.verify_periods import VerifyPeriods
from tests.periods.world import (
    ACME,
    PeriodWorld,
    period_world,
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
