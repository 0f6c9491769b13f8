"""What every `FrozenReads` promises, and what reconciliation makes of it, on fake and Postgres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads
from tallygate.adapters.postgres.reconcile_frozen import PostgresFrozenReads
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.drift import NOTHING, Figures
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.period import GRACE_US
from tallygate.domain.reconcile import Figure, Reconciled, Step, Verdict
from tallygate.domain.window import DAY_US, Window
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts
from tallygate.flow.reconcile_frozen import OPEN, FrozenFigures
from tallygate.ports.reconcile import FrozenReads, PeriodAsked, ReconcileReads
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.reconcile import FakeReconcileReads
from tallygate.testing.reconcile_frozen import FakeFrozenReads
from tests.periods.world import (
    ACME,
    CALLS,
    DECEMBER,
    EXACT,
    JANUARY,
    LEAST,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    period_world,
    tenant,
)

ASKED = PeriodAsked(tenant(), Window(OCTOBER, NOVEMBER))
ALL_METERS = (REQUESTS, CALLS, PEAK, LEAST, EXACT)


@dataclass(frozen=True, slots=True)
class Subject:
    """Periods, and what reconciles them."""

    world: PeriodWorld
    reads: FrozenReads
    usage: ReconcileReads

    async def october(self) -> dict[str, Reconciled]:
        """Reconcile October."""
        return await self.of(ASKED)

    async def of(self, asked: PeriodAsked) -> dict[str, Reconciled]:
        """Reconcile a period."""
        world = self.world
        sources = (
            FrozenFigures(self.reads, world.catalogs, world.clock),
            LedgerFigures(self.usage, world.catalogs, world.clock),
        )
        found = await Reconcile(ReconcileParts(sources, world.catalogs, world.clock, no_wait)).of(
            [asked]
        )
        return {each.pair.meter: each for each in found}

    async def late(self, amount: int, at_us: int = MID_OCTOBER, **fields: object) -> None:
        """Have an event of each meter come late."""
        await self.world.store(
            *(self.world.event(at_us, amount, meter, **fields) for meter in ALL_METERS)
        )

    async def verdicts(self) -> dict[str, tuple[Verdict, int, int, int]]:
        """Return of each meter the verdict, what is frozen, late and in flight."""
        found: dict[str, tuple[Verdict, int, int, int]] = {}
        for meter, each in (await self.october()).items():
            (figure,) = [one.figure for one in each.readings if one.step is Step.FROZEN]
            assert isinstance(figure, Figure)
            parts = (int(figure.units), int(figure.late), int(figure.in_flight))
            found[meter] = (each.verdict, *parts)
        return found


async def no_wait(_seconds: float) -> None:
    """Go on at once."""


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of reads, over a closed October of 7 and 3 units."""
    async with period_world(dsn) as world:
        events = [
            world.event(MID_OCTOBER + number, amount, meter)
            for meter in ALL_METERS
            for number, amount in enumerate((7, 3))
        ]
        await world.closed_october(*events)
        if world.fake is not None:
            assert isinstance(world.ledger, FakeLedger)
            yield Subject(world, FakeFrozenReads(world.fake), FakeReconcileReads(world.ledger))
            return
        assert dsn is not None
        postgres = Postgres(dsn)
        yield Subject(world, PostgresFrozenReads(postgres), PostgresReconcileReads(postgres))
        await postgres.close()


async def test_a_sealed_period_has_its_totals(subject: Subject) -> None:
    """Of each meter all four figures; a period that was never sealed has none, nor one cut else."""
    november = replace(ASKED, period=Window(NOVEMBER, DECEMBER))
    other = replace(ASKED, period=Window(OCTOBER, NOVEMBER - DAY_US))
    found = await subject.reads.frozen([november, ASKED, other])
    assert [*found] == [1]
    assert {each.meter: each.frozen for each in found[1]} == dict.fromkeys(
        ALL_METERS, Figures(2, 10, 7, 3)
    )
    assert all(each.billed == each.unbilled == each.pending == NOTHING for each in found[1])


async def test_frozen_and_ledger_agree(subject: Subject) -> None:
    """As each meter is taken: nothing is late, nothing in flight."""
    assert await subject.verdicts() == {
        REQUESTS: (Verdict.EXACT, 10, 0, 0),
        EXACT: (Verdict.EXACT, 10, 0, 0),
        CALLS: (Verdict.EXACT, 2, 0, 0),
        PEAK: (Verdict.EXACT, 7, 0, 0),
        LEAST: (Verdict.EXACT, 3, 0, 0),
    }


async def test_late_usage_is_no_drift(subject: Subject) -> None:
    """It is late where another period bills it, before and after that is sealed; or in flight."""
    await subject.late(9)
    elsewhere = {
        REQUESTS: (Verdict.LATE, 10, 9, 0),
        CALLS: (Verdict.LATE, 2, 1, 0),
        PEAK: (Verdict.LATE, 7, 2, 0),
        LEAST: (Verdict.EXACT, 3, 0, 0),
    }
    assert await subject.verdicts() == elsewhere | {EXACT: (Verdict.IN_FLIGHT, 10, 0, 9)}
    # The correction is made, November is closed and bills the rest; more comes.
    await subject.world.run(DECEMBER + GRACE_US)
    corrected = {EXACT: (Verdict.EXACT, 19, 0, 0)}
    assert await subject.verdicts() == elsewhere | corrected
    await subject.late(1)
    assert await subject.verdicts() == {
        REQUESTS: (Verdict.LATE, 10, 10, 0),
        CALLS: (Verdict.LATE, 2, 2, 0),
        PEAK: (Verdict.LATE, 7, 2, 0),
        LEAST: (Verdict.LATE, 3, -2, 0),
        EXACT: (Verdict.IN_FLIGHT, 19, 0, 1),
    }


async def test_refunds_of_a_closed_period_are_late(subject: Subject) -> None:
    """They take from sums alone, below nothing."""
    await subject.world.store(
        subject.world.event(MID_OCTOBER, -7, refund_of=EventId("event-000001")),
    )
    found = await subject.verdicts()
    assert found[REQUESTS] == (Verdict.LATE, 10, -7, 0)


async def test_a_period_that_is_open_again_is_in_flight(subject: Subject) -> None:
    """What comes for a reopened period is to be in its next revision, and then is."""
    world = subject.world
    await world.desk.reopen(world.asked(OCTOBER), world.clock.us + GRACE_US)
    await subject.late(4)
    assert (await subject.verdicts())[REQUESTS] == (Verdict.IN_FLIGHT, 10, 0, 4)
    await world.run(world.clock.us + GRACE_US)
    assert (await subject.verdicts())[REQUESTS] == (Verdict.EXACT, 14, 0, 0)


async def test_a_meter_that_is_late_alone(subject: Subject) -> None:
    """A sealed period without a total of a meter has nothing of it: late is late."""
    await subject.world.store(
        subject.world.event(MID_OCTOBER, 5, REQUESTS, tenant_id="other"),
    )
    world = subject.world
    await world.run(JANUARY + GRACE_US)
    november = replace(ASKED, period=Window(NOVEMBER, DECEMBER))
    await world.store(world.event(MID_NOVEMBER, 5))
    (usage,) = (await subject.reads.frozen([november]))[0]
    assert (usage.meter, usage.frozen, usage.unbilled.sum) == (REQUESTS, NOTHING, 5)
    assert november.tenant.tenant_id == ACME


async def test_an_open_period_was_not_frozen(subject: Subject) -> None:
    """The step says why it has nothing."""
    world = subject.world
    await world.store(world.event(MID_NOVEMBER, 5))
    figures = await FrozenFigures(subject.reads, world.catalogs, world.clock).figures(
        [replace(ASKED, period=Window(NOVEMBER, DECEMBER))]
    )
    assert [each.reading.figure for each in figures] == [OPEN]


ODD = MeterName("odd")


@pytest.mark.parametrize(
    "meter",
    [
        Meter(ODD, group_by=("region",)),
        Meter(ODD, Aggregation.COUNT, group_by=("region",)),
        Meter(ODD, Aggregation.MAX, group_by=("region",)),
        Meter(ODD, Aggregation.UNIQUE, unique_by="user"),
        Meter(ODD, Aggregation.LATEST),
        Meter(ODD, Aggregation.TIME_WEIGHTED),
    ],
    ids=["sum by group", "count by group", "max by group", "unique", "latest", "time weighted"],
)
async def test_every_kind_of_meter_is_held(subject: Subject, meter: Meter) -> None:
    """By its groups together, or by its units; late usage is late, also once it is billed."""
    world = subject.world
    world.meters[ODD] = meter
    await world.declare([tenant()])
    november = [
        world.event(MID_NOVEMBER + n, 3 + n, ODD, dimensions={"region": f"r{n % 2}", "user": "u"})
        for n in range(4)
    ]
    await world.store(*november)
    await world.run(DECEMBER + GRACE_US)
    asked = replace(ASKED, period=Window(NOVEMBER, DECEMBER))
    assert (await subject.of(asked))[ODD].verdict is Verdict.EXACT
    late = world.event(MID_NOVEMBER + 9, 50, ODD, dimensions={"region": "r2", "user": "v"})
    await world.store(late)
    assert (await subject.of(asked))[ODD].verdict is Verdict.LATE
    await world.run(JANUARY + GRACE_US)
    assert (await subject.of(asked))[ODD].verdict is Verdict.LATE
