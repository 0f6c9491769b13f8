"""What every `PeriodUsage` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.period_usage import MeterUsage, PeriodUsage
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_usage import FakePeriodUsage
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
REQUESTS = MeterName("requests")


@dataclass(frozen=True, slots=True)
class Subject:
    """A reader, and what stores that which it reads."""

    ledger: FakeLedger | PostgresLedger
    reader: PeriodUsage
    postgres: Postgres | None = None

    async def store(self, *events: UsageEvent) -> None:
        """Store events alone."""
        await self.ledger.persist(LedgerBatch(events))

    async def declare(self, *meters: Meter) -> None:
        """Have a catalog of these meters in effect."""
        named = {meter.name: meter for meter in meters}
        if isinstance(self.reader, FakePeriodUsage):
            self.reader.meters = named
            return
        assert self.postgres is not None
        store = PostgresCatalogStore(self.postgres)
        newest = await store.newest()
        await store.write(CatalogChange(Catalog(meters=named)), newest.version)


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of reader, with an empty ledger."""
    if dsn is None:
        ledger = FakeLedger()
        yield Subject(ledger, FakePeriodUsage(ledger))
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresLedger(postgres), PostgresPeriodUsage(postgres), postgres)
    await postgres.close()


async def test_a_window_has_what_happened_in_it(subject: Subject) -> None:
    """From its first minute to before its last, of one tenant alone, over days and hours."""
    start, end = NOON_US - 2 * DAY_US + 7 * MINUTE_US, NOON_US + 3 * HOUR_US + MINUTE_US
    times = (start - 1, start, NOON_US - DAY_US, NOON_US, end - 1, end)
    await subject.store(
        *(event(n, event_time_us=at, amount=10**n) for n, at in enumerate(times)),
        event(7, tenant_id=TenantId("other")),
    )
    found = await subject.reader.of_window(ACME, start, end)
    assert found == [MeterUsage(REQUESTS, (), 11110, 4)]


@pytest.mark.parametrize(
    ("aggregation", "quantity"), [("count", 2), ("sum", 9), ("max", 7), ("min", 4)]
)
async def test_quantity_is_by_the_meters_aggregation(
    subject: Subject, aggregation: str, quantity: int
) -> None:
    """A refund takes from the sum, and is no use of its own."""
    await subject.declare(Meter(REQUESTS, Aggregation(aggregation)))
    refund = event(3, amount=-2, refund_of=EventId("event-1"))
    late = event(2, amount=7, event_time_us=NOON_US - DAY_US)
    await subject.store(event(1, amount=4), late, refund)
    found = await subject.reader.of_window(ACME, NOON_US - DAY_US, NOON_US + MINUTE_US)
    assert found == [MeterUsage(REQUESTS, (), quantity, 2)]


async def test_meters_come_by_name(subject: Subject) -> None:
    """Each meter with an event in the window has a row, one that the catalog has not as well."""
    await subject.store(*(event(n, meter=MeterName(f"m{n}")) for n in (2, 1, 3)))
    found = await subject.reader.of_window(ACME, NOON_US, NOON_US + MINUTE_US)
    assert [each.meter for each in found] == ["m1", "m2", "m3"]
    assert await subject.reader.of_window(ACME, NOON_US - MINUTE_US, NOON_US) == []


async def test_bounds_are_checked(subject: Subject) -> None:
    """A window of parts of minutes would not be exact."""
    with pytest.raises(InvalidField):
        await subject.reader.of_window(ACME, NOON_US + 1, NOON_US + MINUTE_US)
