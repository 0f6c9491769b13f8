"""What every `UsageReplay` promises, asked of the fake and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from tallygate.adapters.postgres import usage_replay
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import SourceId, TenantId
from tallygate.ports import LedgerBatch
from tallygate.ports.replay import ReplayQuery, UsageReplay
from tallygate.testing.replay import FakeUsageReplay
from tests.usage_events import NOON_US, event

PAGE = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """A ledger to be read again, and how it is filled."""

    replay: UsageReplay
    fake: FakeUsageReplay | None = None
    postgres: Postgres | None = None

    async def store(self, *events: UsageEvent) -> None:
        """Store events."""
        if self.fake is not None:
            self.fake.stored += events
            return
        assert self.postgres is not None
        await PostgresLedger(self.postgres).persist(LedgerBatch(events))

    async def read(self, **query: object) -> list[UsageEvent]:
        """Return all events that a query covers."""
        pages = self.replay.events(ReplayQuery(**query))  # type: ignore[arg-type]
        return [each async for page in pages for each in page]


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    """Each kind of replay, with small pages."""
    if dsn is None:
        fake = FakeUsageReplay(page=PAGE)
        yield Subject(fake, fake=fake)
        return
    monkeypatch.setattr(usage_replay, "PAGE", PAGE)
    postgres = Postgres(dsn)
    yield Subject(PostgresUsageReplay(postgres), postgres=postgres)
    await postgres.close()


def numbers(events: Sequence[UsageEvent]) -> list[int]:
    """Return the sequence numbers."""
    return [each.source_seq for each in events]


async def test_events_come_in_the_order_of_their_acceptance(subject: Subject) -> None:
    """By acceptance, not by when they took place; of one instant, by source and number."""
    late = event(1, received_at_us=NOON_US + 50, event_time_us=NOON_US - 9_000_000)
    first = event(2, received_at_us=NOON_US + 10, event_time_us=NOON_US + 40)
    twins = [event(number, received_at_us=NOON_US + 20) for number in (4, 3)]
    other = event(9, received_at_us=NOON_US + 20, source_id=SourceId("source-0"))
    await subject.store(late, first, *twins, other)
    assert numbers(await subject.read()) == [2, 9, 3, 4, 1]


async def test_pages_are_bounded_and_leave_nothing_out(subject: Subject) -> None:
    """Every event comes once, a page at a time."""
    await subject.store(*[event(number, received_at_us=NOON_US + number) for number in range(1, 9)])
    pages = [numbers(page) async for page in subject.replay.events(ReplayQuery())]
    assert pages == [[1, 2, 3], [4, 5, 6], [7, 8]]


async def test_an_event_comes_as_it_was_stored(subject: Subject) -> None:
    """All that limits can go by is there."""
    context = EventContext("subject", "resource", "session", "eu-1", "hd", "correlation", "py")
    stored = event(1, amount=2**53 - 1, context=context, dimensions={"ü": "1", "b": ""})
    await subject.store(stored)
    [found] = await subject.read()
    assert replace(found, counter_epoch=stored.counter_epoch) == stored


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"tenant_id": TenantId("acme")}, [1, 3]),
        ({"from_us": NOON_US + 2}, [2, 3]),
        ({"to_us": NOON_US + 3}, [1, 2]),
        ({"from_us": NOON_US + 2, "to_us": NOON_US + 3}, [2]),
        ({"tenant_id": TenantId("nobody")}, []),
    ],
)
async def test_a_query_bounds_what_is_read(
    subject: Subject, query: dict[str, object], expected: list[int]
) -> None:
    """From an instant of acceptance, to before another, of one tenant."""
    for number, tenant in ((1, "acme"), (2, "other"), (3, "acme")):
        await subject.store(
            event(number, received_at_us=NOON_US + number, tenant_id=TenantId(tenant))
        )
    assert numbers(await subject.read(**query)) == expected


async def test_what_is_stored_meanwhile_does_not_show(subject: Subject) -> None:
    """A reading is of one moment: what is stored behind its back is another reading's."""
    await subject.store(*[event(number, received_at_us=NOON_US + number) for number in range(1, 7)])
    seen: list[int] = []
    async for page in subject.replay.events(ReplayQuery()):
        seen += numbers(page)
        if len(seen) == PAGE:
            await subject.store(event(50, received_at_us=NOON_US + 50))
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_reading_that_is_left_holds_nothing(postgres_dsn: str) -> None:
    """Whoever stops half-way gives its connection back."""
    postgres = Postgres(postgres_dsn)
    await PostgresLedger(postgres).persist(LedgerBatch((event(1),)))
    pages = PostgresUsageReplay(postgres).events(ReplayQuery())
    assert await anext(pages)
    await pages.aclose()
    async with asyncio.timeout(5):
        # It waits for the connections that are lent.
        await postgres.close()
