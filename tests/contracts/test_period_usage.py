"""What every `PeriodUsage` and `WindowReader` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.rollup import shape_of
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.period_usage import MeterUsage, WindowUsage
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_usage import FakePeriodUsage
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
REQUESTS = MeterName("requests")


@dataclass(frozen=True, slots=True)
class Subject:
    """A reader, and what stores that which it reads."""

    ledger: FakeLedger | PostgresLedger
    reader: FakePeriodUsage | PostgresPeriodUsage
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
        for meter in meters:
            await PostgresRollups(self.postgres).switch(meter.name, shape_of(meter))


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


def of(user: str, number: int, **fields: object) -> UsageEvent:
    """Return an event of a user in the region eu."""
    return event(number, **{"dimensions": {"user": user, "region": "eu"}, **fields})


def taken(number: int, refunded: UsageEvent, amount: int) -> UsageEvent:
    """Return a refund of so many units of an event, dated as that is."""
    return replace(
        event(number),
        amount=-amount,
        refund_of=refunded.event_id,
        event_time_us=refunded.event_time_us,
        dimensions=refunded.dimensions,
    )


HOUR = Window(NOON_US, NOON_US + HOUR_US)


async def test_latest_is_by_time_then_id(subject: Subject) -> None:
    """Whatever comes first; a refund is no event of its own."""
    await subject.declare(Meter(REQUESTS, Aggregation.LATEST))
    last = event(2, amount=7, event_time_us=NOON_US + 9)
    await subject.store(last)
    await subject.store(
        event(1, amount=5, event_time_us=NOON_US + 9),
        event(3, amount=9, event_time_us=NOON_US + 8),
        taken(4, last, 7),
    )
    found = await subject.reader.of_window(ACME, HOUR.start_us, HOUR.end_us)
    assert found == [MeterUsage(REQUESTS, (), 7, 3)]


async def test_values_are_counted_once(subject: Subject) -> None:
    """Over all buckets of a window, while not all that they used is taken back."""
    await subject.declare(Meter(REQUESTS, Aggregation.UNIQUE, unique_by="user"))
    later = NOON_US + DAY_US
    gone = of("b", 3, amount=4)
    await subject.store(of("a", 1), of("a", 2, event_time_us=later), gone, of("", 4))
    await subject.store(taken(5, gone, 3), of("c", 6, event_time_us=later + HOUR_US))
    window = (NOON_US, later + 2 * HOUR_US)
    assert await subject.reader.of_window(ACME, *window) == [MeterUsage(REQUESTS, (), 3, 5)]
    await subject.store(taken(7, gone, 1))
    assert await subject.reader.of_window(ACME, *window) == [MeterUsage(REQUESTS, (), 2, 5)]


async def test_percentiles_are_taken_of_whole_windows(subject: Subject) -> None:
    """Not of percentiles of their parts; which one is asked for may change at any time."""
    meter = Meter(REQUESTS, Aggregation.PERCENTILE, percentile_ppm=950_000)
    await subject.declare(meter)
    await subject.store(
        *(event(n, amount=n, event_time_us=NOON_US + n * HOUR_US) for n in range(1, 21)),
        event(21, amount=2**53 - 1, event_time_us=NOON_US + 3 * DAY_US),
    )
    windows = [Window(NOON_US, NOON_US + DAY_US), Window(NOON_US, NOON_US + 4 * DAY_US)]
    found = await subject.reader.of_windows(ACME, meter, windows)
    assert found == [WindowUsage(0, (), 19, 20), WindowUsage(1, (), 20, 21)]
    highest = replace(meter, percentile_ppm=1_000_000)
    (found_highest,) = await subject.reader.of_windows(ACME, highest, windows[1:])
    assert abs(int(found_highest.quantity) - 2**53) * 128 <= 2**53


async def test_levels_hold_until_the_next(subject: Subject) -> None:
    """Over minutes, hours and days without an event, from before the window, to its end."""
    meter = Meter(REQUESTS, Aggregation.TIME_WEIGHTED)
    await subject.declare(meter)
    first = event(1, amount=10, event_time_us=NOON_US - 3 * DAY_US)
    await subject.store(event(2, amount=4, event_time_us=NOON_US + 30 * SECOND_US))
    await subject.store(first, event(3, amount=6, event_time_us=NOON_US + 90 * SECOND_US + 1))
    windows = [HOUR, Window(NOON_US - DAY_US, NOON_US), Window(NOON_US, NOON_US + 3 * MINUTE_US)]
    found = await subject.reader.of_windows(ACME, meter, windows)
    short = Decimal("300") + Decimal("240.000004") + Decimal("539.999994")
    assert found == [
        WindowUsage(0, (), short + 6 * (3600 - 180), 2),
        WindowUsage(1, (), Decimal(864_000), 0),
        WindowUsage(2, (), short, 2),
    ]
    before = Window(NOON_US - 9 * DAY_US, NOON_US - 4 * DAY_US)
    assert await subject.reader.of_windows(ACME, meter, [before]) == []
    # A refund lowers the level that its event had set, from then on, to nothing.
    await subject.store(taken(4, first, 10))
    assert (await subject.reader.of_windows(ACME, meter, windows[1:2])) == []


async def test_a_refund_may_come_before_its_level(subject: Subject) -> None:
    """Of two ingesters, the one that has the refund may be first."""
    meter = Meter(REQUESTS, Aggregation.TIME_WEIGHTED)
    await subject.declare(meter)
    level = event(1, amount=10)
    await subject.store(taken(2, level, 4))
    (found,) = await subject.reader.of_windows(ACME, meter, [HOUR])
    assert (found.quantity, found.count) == (0, 0)
    await subject.store(level)
    (found,) = await subject.reader.of_windows(ACME, meter, [HOUR])
    assert (found.quantity, found.count) == (6 * 3600, 1)


@pytest.mark.parametrize(
    ("meter", "both", "apart"),
    [
        (Meter(REQUESTS), 9, [2, 4, 3]),
        (Meter(REQUESTS, Aggregation.COUNT), 3, [1, 1, 1]),
        (Meter(REQUESTS, Aggregation.MAX), 4, [2, 4, 3]),
        (Meter(REQUESTS, Aggregation.MIN), 2, [2, 4, 3]),
        (Meter(REQUESTS, Aggregation.LATEST), 3, [2, 4, 3]),
        (Meter(REQUESTS, Aggregation.UNIQUE, unique_by="user"), 2, [1, 1, 1]),
        (Meter(REQUESTS, Aggregation.PERCENTILE, percentile_ppm=500_000), 3, [2, 4, 3]),
        (Meter(REQUESTS, Aggregation.TIME_WEIGHTED), 9 * 60, [120, 240, 180]),
    ],
    ids=list(Aggregation.__members__),
)
async def test_groups_are_kept_apart_or_taken_together(
    subject: Subject, meter: Meter, both: int, apart: list[int]
) -> None:
    """By all of their values, by some, or by none; a field of the context is a value as well."""
    meter = replace(meter, group_by=("region", "sku"))
    await subject.declare(meter)
    window = Window(NOON_US, NOON_US + MINUTE_US)
    await subject.store(
        event(1, amount=2, dimensions={"user": "a", "sku": "x"}),
        event(2, amount=4, dimensions={"user": "b", "sku": "x", "region": "us"}),
        event(3, amount=3, dimensions={"user": "b"}),
    )
    (total,) = await subject.reader.of_windows(ACME, meter, [window])
    assert (total.quantity, total.count) == (both, 3)
    found = await subject.reader.of_window(ACME, window.start_us, window.end_us)
    assert {usage.group: usage.quantity for usage in found} == {
        (("region", "eu-1"), ("sku", "x")): apart[0],
        (("region", "us"), ("sku", "x")): apart[1],
        (("region", "eu-1"), ("sku", "")): apart[2],
    }
    by_sku = await subject.reader.of_windows(ACME, meter, [window], ["sku"])
    assert [usage.group for usage in by_sku] == [(("sku", ""),), (("sku", "x"),)]
    turned = await subject.reader.of_windows(ACME, meter, [window], ["sku", "region"])
    assert turned[0].group == (("sku", ""), ("region", "eu-1"))


async def test_windows_may_overlap(subject: Subject) -> None:
    """Sliding windows share buckets; each has all of its own."""
    await subject.store(*(event(n, event_time_us=NOON_US + n * MINUTE_US) for n in range(10)))
    windows = [Window(NOON_US + n * MINUTE_US, NOON_US + (n + 3) * MINUTE_US) for n in range(12)]
    found = await subject.reader.of_windows(ACME, Meter(REQUESTS), windows)
    assert [(usage.number, usage.quantity) for usage in found] == [
        *((n, 3) for n in range(8)),
        (8, 2),
        (9, 1),
    ]
    assert await subject.reader.of_windows(ACME, Meter(REQUESTS), []) == []
