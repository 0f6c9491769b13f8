"""What every `Rollups` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Shape
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.ports import LedgerBatch
from tallygate.ports.rollups import Rollups, ShapeState, UsedDay
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.rollups import FakeRollups
from tests.usage_events import NOON_US, event

REQUESTS = MeterName("requests")
BY_REGION = Shape(Aggregation.SUM, group_by=("region",))
USERS = Shape(Aggregation.UNIQUE, "user_id")
TODAY_US = NOON_US - NOON_US % DAY_US


@dataclass(frozen=True, slots=True)
class Subject:
    """Rollups, and the ledger that they are of."""

    ledger: FakeLedger | PostgresLedger
    rollups: Rollups

    async def store(self, *events: UsageEvent) -> None:
        """Store events alone."""
        await self.ledger.persist(LedgerBatch(events))

    async def number(self) -> int:
        """Return the number of the meter's shape, 0 for none."""
        return sum(state.number for state in await self.rollups.shapes())

    async def days(self) -> list[UsedDay]:
        """Return the days of the meter's shape."""
        return list(await self.rollups.days(await self.number()))

    async def rebuild(self, hours: Window, known: Window | None) -> bool:
        """Make the rollups of the meter's shape anew."""
        return await self.rollups.rebuild(await self.number(), hours, known)


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of rollups, of an empty ledger."""
    if dsn is None:
        ledger = FakeLedger()
        yield Subject(ledger, FakeRollups(ledger))
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresLedger(postgres), PostgresRollups(postgres))
    await postgres.close()


async def test_a_meter_that_was_never_used_is_whole(subject: Subject) -> None:
    """From its first event on, whenever that is."""
    await subject.rollups.switch(REQUESTS, BY_REGION)
    assert await subject.days() == []
    await subject.store(event(1), event(2, event_time_us=NOON_US - DAY_US))
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, BY_REGION, True)]
    assert await subject.days() == [
        UsedDay(TODAY_US - DAY_US, 1, True),
        UsedDay(TODAY_US, 1, True),
    ]


async def test_a_meter_in_use_is_whole_once_it_is_made_anew(subject: Subject) -> None:
    """Day by day where it says so, and everywhere at the end."""
    await subject.store(event(1), event(2), event(3, event_time_us=NOON_US - DAY_US))
    await subject.rollups.switch(REQUESTS, USERS)
    today = Window(TODAY_US, TODAY_US + DAY_US)
    assert await subject.rebuild(today, today)
    assert await subject.days() == [
        UsedDay(TODAY_US - DAY_US, 1, False),
        UsedDay(TODAY_US, 2, True),
    ]
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, USERS, False)]
    yesterday = Window(TODAY_US - DAY_US, TODAY_US)
    assert await subject.rebuild(yesterday, None)
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, USERS, True)]


async def test_hours_add_up_to_a_day(subject: Subject) -> None:
    """A day is whole when all of its hours are."""
    await subject.store(event(1))
    await subject.rollups.switch(REQUESTS, BY_REGION)
    noon = TODAY_US + 12 * HOUR_US
    for hours, whole in (
        (Window(noon, TODAY_US + DAY_US), False),
        (Window(TODAY_US, noon), True),
    ):
        await subject.rebuild(hours, hours)
        assert [day.whole for day in await subject.days()] == [whole]


async def test_a_shape_is_switched_once(subject: Subject) -> None:
    """The same shape again changes nothing; another begins without events, as none does."""
    await subject.store(event(1))
    await subject.rollups.switch(REQUESTS, BY_REGION)
    await subject.rebuild(Window(0, HOUR_US), None)
    await subject.rollups.switch(REQUESTS, BY_REGION)
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, BY_REGION, True)]
    await subject.rollups.switch(REQUESTS, USERS)
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, USERS, False)]
    await subject.rollups.switch(REQUESTS, None)
    assert await subject.rollups.shapes() == []
    assert await subject.days() == []
    assert not await subject.rebuild(Window(0, HOUR_US), None)


async def test_what_is_given_up_is_deleted(subject: Subject) -> None:
    """In bounded parts, and nothing of the shape in effect."""
    await subject.rollups.switch(REQUESTS, BY_REGION)
    await subject.store(event(1))
    assert await subject.rollups.purge(9) == 0
    await subject.rollups.switch(REQUESTS, USERS)
    assert await subject.rollups.purge(9) == 1
    assert await subject.rollups.purge(9) == 0


async def test_a_shape_that_was_given_up_is_not_made(subject: Subject) -> None:
    """Whoever is at it is told, and what is in effect is not taken for whole by that."""
    await subject.store(event(1))
    await subject.rollups.switch(REQUESTS, BY_REGION)
    before = await subject.number()
    await subject.rollups.switch(REQUESTS, USERS)
    await subject.rollups.switch(REQUESTS, BY_REGION)
    assert not await subject.rollups.rebuild(before, Window(0, HOUR_US), None)
    assert await subject.rollups.days(before) == []
    assert await subject.rollups.shapes() == [ShapeState(REQUESTS, BY_REGION, False)]
