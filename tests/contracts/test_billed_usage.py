"""What `BilledUsage` and `UsageEvidence` promise, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.domain.billed import Level
from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.invoice import Selection
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.ports import LedgerBatch
from tallygate.ports.billing import (
    UsageAsked,
)
from tallygate.testing.billing import (
    FakeBilledUsage,
)
from tests.builders import ACME, REQUESTS
from tests.contracts.billing import START, SUM, Subject, lent, subject_of
from tests.usage_events import NOON_US, event


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fakes."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of every port, empty."""
    async with subject_of(dsn) as made:
        yield made


def use(number: int, at_us: int, amount: int = 1, **fields: object) -> UsageEvent:
    """Return an event of a time and amount."""
    return event(number, event_time_us=at_us, amount=amount, **fields)


def asked(start_us: int, end_us: int, selection: Selection = SUM) -> UsageAsked:
    """Return the usage of a selection in a window."""
    return UsageAsked(3, selection, Window(start_us, end_us))


async def figures(
    subject: Subject, *asks: UsageAsked
) -> list[tuple[tuple[tuple[str, str], ...], int, int]]:
    """Return group, quantity and count of what was used."""
    found = await subject.usage.billed(ACME, asks)
    return [(each.group, int(each.quantity), each.count) for each in found]


async def test_usage_is_exact_at_any_instant(subject: Subject) -> None:
    """A window may begin and end within a minute: its first instant is in, its last is not."""
    at = NOON_US + 30 * SECOND_US
    await subject.store(use(1, at - 1, 1), use(2, at, 10), use(3, at + 3 * DAY_US, 100))
    assert await figures(subject, asked(at, at + 3 * DAY_US)) == [((), 10, 1)]
    assert await figures(subject, asked(at - 1, at + 3 * DAY_US + 1)) == [((), 111, 3)]
    assert await figures(subject, asked(at + 1, at + 2)) == []


@pytest.mark.parametrize(
    ("aggregation", "quantity"),
    [
        (Aggregation.SUM, 18),
        (Aggregation.COUNT, 3),
        (Aggregation.MAX, 9),
        (Aggregation.MIN, 5),
    ],
)
async def test_every_aggregation(subject: Subject, aggregation: Aggregation, quantity: int) -> None:
    """Refunds take from the sum, and are no use of their own."""
    day = NOON_US // DAY_US * DAY_US
    refund = use(9, day + 5, -3, refund_of=EventId("event-1"))
    await subject.store(use(1, day, 5), use(2, day + HOUR_US, 9), use(3, day + DAY_US, 7), refund)
    selection = Selection(REQUESTS, aggregation)
    assert await figures(subject, asked(day, day + 2 * DAY_US, selection)) == [((), quantity, 3)]


async def test_values_choose_and_tell_apart(subject: Subject) -> None:
    """`where` looks into dimensions, then into the context; `per` makes groups, one for none."""
    large, small = {"model": "large"}, {"model": "small"}
    await subject.store(
        use(1, NOON_US, 1, dimensions=large),
        use(2, NOON_US, 2, dimensions=small),
        use(3, NOON_US, 4, dimensions={**large, "region": "mars"}),
        use(4, NOON_US, 8, dimensions={}, context=EventContext(region="us")),
        use(5, NOON_US, 16, dimensions={}, tenant_id=TenantId("other")),
    )
    day = (NOON_US, NOON_US + DAY_US)
    of_model = replace(SUM, where=(("model", ("large", "small")),))
    by_region = replace(SUM, per="region")
    assert await figures(subject, asked(*day, of_model)) == [((), 7, 3)]
    assert await figures(subject, asked(*day, by_region)) == [
        ((("region", "eu-1"),), 3, 2),
        ((("region", "mars"),), 4, 1),
        ((("region", "us"),), 8, 1),
    ]
    both = replace(by_region, where=(("model", ("large",)), ("region", ("mars", "venus"))))
    assert await figures(subject, asked(*day, both)) == [((("region", "mars"),), 4, 1)]
    by_model = replace(SUM, per="model", where=(("region", ("us",)),))
    assert await figures(subject, asked(*day, by_model)) == [((("model", ""),), 8, 1)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY_US), st.integers(1, 50)), max_size=12),
    st.lists(st.integers(0, 3 * DAY_US), min_size=2, max_size=2).map(sorted),
)
async def test_windows_are_covered_once(
    postgres_dsn: str, used: Sequence[tuple[int, int]], ends: Sequence[int]
) -> None:
    """Out of rollups and events comes what the events come to one by one."""
    day = NOON_US // DAY_US * DAY_US
    # Ids differ by example, as one database serves all.
    tenant = TenantId(f"t{abs(hash((tuple(used), tuple(ends))))}")
    events = [
        use(number, day + at_us, amount, tenant_id=tenant)
        for number, (at_us, amount) in enumerate(used)
    ]
    window = Window(day + ends[0], day + ends[1])
    async with lent(postgres_dsn) as postgres:
        await PostgresLedger(postgres).persist(LedgerBatch(tuple(events)))
        found = await PostgresBilledUsage(postgres).billed(tenant, [UsageAsked(0, SUM, window)])
        meters = await PostgresBilledUsage(postgres).meters(tenant, window)
    fake = FakeBilledUsage(events)
    assert found == await fake.billed(tenant, [UsageAsked(0, SUM, window)])
    assert meters == await fake.meters(tenant, window)


async def test_meters_in_use(subject: Subject) -> None:
    """Meters are named once, if anything was used in the minutes of the window."""
    await subject.store(use(1, NOON_US), use(2, NOON_US + MINUTE_US, meter=MeterName("bytes")))
    await subject.store(use(3, NOON_US + 5))
    assert await subject.usage.meters(ACME, Window(NOON_US, NOON_US + 2 * MINUTE_US)) == [
        *("bytes", "requests")
    ]
    assert await subject.usage.meters(ACME, Window(NOON_US, NOON_US + 1)) == ["requests"]
    assert await subject.usage.meters(ACME, Window(0, NOON_US)) == []


async def test_evidence_is_paged(subject: Subject) -> None:
    """Buckets and events come by time; a page goes on where the one before has ended."""
    day = NOON_US // DAY_US * DAY_US
    await subject.store(*(use(number, day + number * 20 * SECOND_US) for number in range(1, 8)))
    of = asked(day + 50 * SECOND_US, day + 2 * MINUTE_US + 1)
    buckets = await subject.evidence.buckets(ACME, of, START, 10)
    assert [(each.level, each.count, each.event_id) for each in buckets] == [
        (Level.MINUTE, 3, ""),
        (Level.EVENT, 1, "event-6"),
    ]
    found: list[str] = []
    after = START
    while page := await subject.evidence.events(ACME, of, (), after, 3):
        assert len(page) <= 3
        found += [each.event_id for each in page]
        after = (page[-1].event_time_us, page[-1].event_id)
    assert found == ["event-3", "event-4", "event-5", "event-6"]
    grouped = replace(of, selection=replace(SUM, per="region"))
    group = (("region", "eu-1"),)
    assert len(await subject.evidence.events(ACME, grouped, group, START, 9)) == 4
    assert await subject.evidence.events(ACME, grouped, (("region", "x"),), START, 9) == []
