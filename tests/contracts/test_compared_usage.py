"""What every `ComparedUsage` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.compared_usage import PostgresComparedUsage
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.compare import Entry
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import LedgerBatch
from tallygate.ports.compare import ComparedUsage, OurUsage
from tallygate.testing.compare import FakeComparedUsage
from tallygate.testing.ledger import FakeLedger
from tests.usage_events import NOON_US, event

ACME, BIG, ACCENT = TenantId("acme"), TenantId("Zebra"), TenantId("élan")
REQUESTS, BYTES = MeterName("requests"), MeterName("bytes")
WIDE = OurUsage(NOON_US - DAY_US, NOON_US + DAY_US)

USED = (
    event(1, amount=2),
    event(2, amount=3, event_time_us=NOON_US + MINUTE_US),
    event(3, amount=-1, event_time_us=NOON_US + MINUTE_US, refund_of=EventId("event-2")),
    event(4, amount=5, event_time_us=NOON_US + HOUR_US, meter=BYTES),
    event(5, amount=2**53, tenant_id=ACCENT),
    event(6, amount=2**53 - 1, tenant_id=ACCENT),
    event(7, tenant_id=BIG),
    event(8, event_time_us=NOON_US + DAY_US),
)


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def usage(dsn: str | None) -> AsyncIterator[ComparedUsage]:
    """Each kind of usage, over the same events."""
    if dsn is None:
        ledger = FakeLedger()
        await ledger.persist(LedgerBatch(USED))
        yield FakeComparedUsage(ledger)
        return
    postgres = Postgres(dsn)
    await PostgresLedger(postgres).persist(LedgerBatch(USED))
    yield PostgresComparedUsage(postgres)
    await postgres.close()


async def entries(rows: AsyncIterator[Entry]) -> list[Entry]:
    """Return all entries."""
    return [row async for row in rows]


async def test_buckets_come_by_their_keys(usage: ComparedUsage) -> None:
    """Tenants are in the order of code points, as theirs will be; sums are exact."""
    found = await entries(usage.buckets(WIDE, "minute", "sum"))
    assert found == [
        Entry(BIG, REQUESTS, NOON_US, Decimal(1)),
        Entry(ACME, BYTES, NOON_US + HOUR_US, Decimal(5)),
        Entry(ACME, REQUESTS, NOON_US, Decimal(2)),
        Entry(ACME, REQUESTS, NOON_US + MINUTE_US, Decimal(2)),
        Entry(ACCENT, REQUESTS, NOON_US, Decimal(2**54 - 1)),
    ]
    assert [each.key for each in found] == sorted(each.key for each in found)


async def test_buckets_are_of_any_length_and_figure(usage: ComparedUsage) -> None:
    """Hours and days add up; a count is of events that were not refunds."""
    asked = OurUsage(NOON_US, NOON_US + HOUR_US, ACME)
    (hour,) = await entries(usage.buckets(asked, "hour", "count"))
    assert (hour.bucket_us, hour.units) == (NOON_US, Decimal(2))
    days = await entries(
        usage.buckets(OurUsage(0, NOON_US + 2 * DAY_US, ACME, REQUESTS), "day", "sum")
    )
    start = NOON_US - NOON_US % DAY_US
    assert [(day.bucket_us, day.units) for day in days] == [
        (start, Decimal(4)),
        (start + DAY_US, Decimal(1)),
    ]


async def test_events_come_by_their_ids(usage: ComparedUsage) -> None:
    """Each event has its meter, its time and its amount, refunds too, within the stretch alone."""
    found = await entries(usage.events(OurUsage(NOON_US, NOON_US + DAY_US, ACME)))
    assert [(each.event_id, each.meter, each.bucket_us, int(each.units)) for each in found] == [
        ("event-1", REQUESTS, NOON_US, 2),
        ("event-2", REQUESTS, NOON_US + MINUTE_US, 3),
        ("event-3", REQUESTS, NOON_US + MINUTE_US, -1),
        ("event-4", BYTES, NOON_US + HOUR_US, 5),
    ]
    every = await entries(usage.events(WIDE))
    assert [each.key for each in every] == sorted(each.key for each in every)
    assert {each.tenant_id for each in every} == {ACME, BIG, ACCENT}
