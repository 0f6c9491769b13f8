"""Closed periods whose events were dropped: nothing is told to differ, and nothing is made up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.compared_usage import PostgresComparedUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_replay import PostgresMeterEvents, PostgresUsageReplay
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName
from tallygate.domain.invoice import Selection
from tallygate.domain.period import GRACE_US, Held, PeriodState
from tallygate.domain.window import DAY_US, Window
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.ports.billing import UsageAsked
from tallygate.ports.compare import OurUsage
from tallygate.ports.export import EventsArchived
from tallygate.ports.replay import ReplayQuery
from tests.flow.retention_parts import MONTHS, Parts
from tests.periods.world import ACME, REQUESTS, PeriodWorld, at, tenant

ODD = MeterName("odd")
FEBRUARY, MARCH, APRIL, MAY = (at(f"2024-0{month}-01") for month in (2, 3, 4, 5))
MID_FEBRUARY = at("2024-02-15T12:00")
WHOLE = Window(FEBRUARY, MARCH)
CUT = Window(FEBRUARY, MID_FEBRUARY + 1)


@pytest.fixture
async def parts(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """What archives months and drops them."""
    postgres = Postgres(postgres_dsn)
    found = Parts(postgres_dsn, postgres, tmp_path)
    await found.execute(MONTHS.format("2024-02-01", "2024-02-01"))
    yield found
    await postgres.close()


async def dropped_february(
    world: PeriodWorld, parts: Parts, meter: Meter, *, rolled: bool = False
) -> None:
    """Have a February that was closed, and whose events were dropped since."""
    world.meters[ODD] = meter
    await world.declare([tenant()])
    if rolled:
        await world.roll_up()
    user = {"user": "ann"}
    await world.store(
        world.event(MID_FEBRUARY, 5), world.event(MID_FEBRUARY, 3, ODD, dimensions=user)
    )
    await world.run(MARCH)
    await world.run(MARCH + GRACE_US)
    await parts.archived()
    assert [each.refused for each in await parts.dropped()] == [""]


async def found(world: PeriodWorld) -> list[tuple[bool, tuple[str, ...]]]:
    """Return what is found of every revision."""
    verification = VerifyPeriods(world.reader, world.periods, world.folds)
    return [(each.archived, each.differs) async for each in verification.run(None, None)]


UNIQUE = Meter(ODD, Aggregation.UNIQUE, unique_by="user")
LEVELS = Meter(ODD, Aggregation.TIME_WEIGHTED)


async def test_verifying_says_archived(world: PeriodWorld, parts: Parts) -> None:
    """A revision that lost its events differs in nothing; the months after it are computed."""
    await dropped_february(world, parts, UNIQUE)
    await world.store(world.event(MARCH, 1))
    await world.run(APRIL + GRACE_US)
    assert await found(world) == [(True, ()), (False, ())]


async def test_rollups_tell_what_late_events_change(world: PeriodWorld, parts: Parts) -> None:
    """Where they have just what counts, an archived month is adjusted as any other."""
    await dropped_february(world, parts, UNIQUE, rolled=True)
    late = world.event(MID_FEBRUARY, 1, ODD, dimensions={"user": "bob"})
    await world.store(late, world.event(MARCH, 1))
    await world.run(APRIL + GRACE_US)
    assert await world.bill(MARCH) == {REQUESTS: 1, ODD: 1}
    assert await found(world) == [(True, ()), (False, ())]


async def test_a_level_from_an_archived_month_lasts(world: PeriodWorld, parts: Parts) -> None:
    """Rollups keep levels for ever: the next month is billed by it."""
    await dropped_february(world, parts, LEVELS, rolled=True)
    await world.run(APRIL + GRACE_US)
    assert await world.bill(MARCH) == {ODD: 3 * 31 * DAY_US // 1_000_000}
    assert await found(world) == [(True, ()), (False, ())]


@pytest.mark.parametrize("meter", [UNIQUE, LEVELS])
async def test_what_nothing_tells_any_more_is_held(
    world: PeriodWorld, parts: Parts, meter: Meter
) -> None:
    """Without rollups nobody knows the change: the period waits for an operator's word."""
    await dropped_february(world, parts, meter)
    await world.store(world.event(MID_FEBRUARY, 1, ODD, dimensions={"user": "bob"}))
    await world.run(APRIL + GRACE_US)
    march = await world.reader.period(ACME, MARCH)
    assert march is not None
    assert (march.state, march.held) == (PeriodState.SEALED, Held.METER_NOT_FROZEN)
    assert (await world.kinds())[-1] == "period.held"
    assert (await world.run(APRIL + GRACE_US + DAY_US)).closed == 0
    await world.desk.ask_close(world.asked(MARCH), accept_missing=True)
    assert (await world.run(APRIL + GRACE_US + DAY_US)).closed == 1
    assert await world.bill(MARCH) == {}


async def test_invoices_refuse_what_only_events_tell(world: PeriodWorld, parts: Parts) -> None:
    """Whole minutes are told by rollups still; a cut one, or a fold, would come out smaller."""
    await dropped_february(world, parts, UNIQUE)
    usage = PostgresBilledUsage(parts.postgres)
    plain = Selection(REQUESTS, Aggregation.SUM)
    (whole,) = await usage.billed(ACME, [UsageAsked(0, plain, WHOLE)])
    assert whole.quantity == 5
    unique = Selection(ODD, Aggregation.UNIQUE, unique_by="user")
    levels = Selection(ODD, Aggregation.TIME_WEIGHTED)
    some = Selection(REQUESTS, Aggregation.SUM, where=(("region", ("eu",)),))
    for asked in (
        UsageAsked(0, plain, CUT),
        UsageAsked(0, unique, WHOLE),
        UsageAsked(0, some, WHOLE),
        # A level of before would be missing.
        UsageAsked(0, levels, Window(MARCH, APRIL)),
    ):
        with pytest.raises(EventsArchived, match="2024-02 in") as refused:
            await usage.billed(ACME, [asked])
        assert refused.value.field == "period"
    with pytest.raises(EventsArchived):
        await usage.events(ACME, UsageAsked(0, plain, WHOLE), (), (0, ""), 10)
    with pytest.raises(EventsArchived):
        await usage.buckets(ACME, UsageAsked(0, plain, CUT), (0, ""), 10)
    # Whoever had nothing in that month is told nothing is missing.
    other = tenant(name="other").tenant_id
    assert await usage.billed(other, [UsageAsked(0, plain, CUT)]) == []


async def test_readers_of_events_refuse_too(world: PeriodWorld, parts: Parts) -> None:
    """Sessions, simulations and comparisons by event say where the events are."""
    await dropped_february(world, parts, UNIQUE)
    await world.store(world.event(APRIL + 40 * DAY_US, 7))
    with pytest.raises(EventsArchived):
        async for _ in PostgresMeterEvents(parts.postgres).events(ACME, REQUESTS, WHOLE):
            pass
    replay = PostgresUsageReplay(parts.postgres)
    for query in (ReplayQuery(), ReplayQuery(ACME, MARCH, APRIL)):
        with pytest.raises(EventsArchived):
            async for _ in replay.events(query):
                pass
    pages = [page async for page in replay.events(ReplayQuery(ACME, MAY))]
    assert [each.amount for page in pages for each in page] == [7]
    with pytest.raises(EventsArchived):
        async for _ in PostgresComparedUsage(parts.postgres).events(OurUsage(FEBRUARY, MARCH)):
            pass
