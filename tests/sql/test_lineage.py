"""From a bucket or a message back to exactly the events that it was made of."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.lineage_reads import PostgresLineageReads
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import LedgerBatch
from tallygate.ports.lineage import BucketAsked, BucketEvent, BucketLineage, Grain, Whereabouts
from tests.servers import Databases, connection, run
from tests.usage_events import NOON_US, event

ACME, REQUESTS = TenantId("acme"), MeterName("requests")
WIDTH_US = {Grain.MINUTE: MINUTE_US, Grain.HOUR: HOUR_US, Grain.DAY: DAY_US}


@dataclass(frozen=True, slots=True)
class Parts:
    """A ledger, and what looks back into it."""

    dsn: str
    ledger: PostgresLedger
    reads: PostgresLineageReads

    async def store(self, *events: UsageEvent) -> None:
        """Store events."""
        await self.ledger.persist(LedgerBatch(events))

    async def bucket(self, grain: Grain, at_us: int = NOON_US) -> BucketLineage:
        """Return a bucket of acme's requests with all its events, read three at a time."""
        events: list[BucketEvent] = []
        after: tuple[int, str] | None = None
        while True:
            asked = BucketAsked(ACME, REQUESTS, grain, at_us, after, 3)
            found = await self.reads.bucket(asked)
            events += found.events
            if not found.more:
                # As if it had been one page.
                return BucketLineage(
                    *(found.bucket_us, found.count, found.sum, found.events_count),
                    *(found.events_sum, found.archived, events, found.more),
                )
            after = (found.events[-1].event_time_us, found.events[-1].event_id)


@pytest.fixture
async def parts(postgres_dsn: str) -> AsyncIterator[Parts]:
    """An empty ledger."""
    postgres = Postgres(postgres_dsn)
    yield Parts(postgres_dsn, PostgresLedger(postgres), PostgresLineageReads(postgres))
    await postgres.close()


def inside(events: Sequence[UsageEvent], grain: Grain, at_us: int) -> list[EventId]:
    """Return the ids of acme's requests in the bucket, by time and id."""
    width = WIDTH_US[grain]
    found = [
        (each.event_time_us, each.event_id)
        for each in events
        if (each.tenant_id, each.meter) == (ACME, REQUESTS)
        and each.event_time_us // width == at_us // width
    ]
    return [event_id for _, event_id in sorted(found)]


# Each has a database of its own.
@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(
            st.integers(-2 * DAY_US, 2 * DAY_US),
            st.sampled_from(["acme", "other"]),
            st.sampled_from(["requests", "bytes"]),
        ),
        max_size=25,
    ),
    st.integers(-2 * DAY_US, 2 * DAY_US),
)
def test_a_bucket_is_its_events(
    databases: Databases, migrated_template: str, drawn: list[tuple[int, str, str]], off_us: int
) -> None:
    """Of any bucket, the pages together are the events of its time, and come to the rollup."""
    events = [
        event(
            number + 1, event_time_us=NOON_US + us, tenant_id=TenantId(of), meter=MeterName(meter)
        )
        for number, (us, of, meter) in enumerate(drawn)
    ]
    name = run(databases.create(migrated_template))

    async def looked() -> None:
        postgres = Postgres(databases.dsn(name))
        parts = Parts("", PostgresLedger(postgres), PostgresLineageReads(postgres))
        await parts.store(*events)
        for grain in Grain:
            found = await parts.bucket(grain, NOON_US + off_us)
            ids = inside(events, grain, NOON_US + off_us)
            assert [each.event_id for each in found.events] == ids
            assert (found.count or 0, found.sum or 0) == (len(ids), len(ids))
            assert (found.events_count, found.events_sum) == (len(ids), len(ids))
        await postgres.close()

    run(looked())
    run(databases.drop(name))


async def test_refunds_are_events_of_a_bucket(parts: Parts) -> None:
    """A refund is listed and summed, and not counted, as rollups have it."""
    await parts.store(event(1, amount=5), event(2, amount=-2, refund_of=EventId("event-1")))
    found = await parts.bucket(Grain.MINUTE)
    assert (found.count, found.sum, found.events_count, found.events_sum) == (1, 3, 1, 3)
    assert [each.refund_of for each in found.events] == ["", "event-1"]


async def test_a_bucket_that_differs_shows(parts: Parts) -> None:
    """What the rollup says stands beside what its events come to."""
    await parts.store(event(1))
    async with connection(parts.dsn) as admin:
        await admin.execute("update tallygate.usage_hour set sum = sum + 1")
    found = await parts.bucket(Grain.HOUR)
    assert (found.sum, found.events_sum) == (2, 1)
    assert (await parts.bucket(Grain.DAY)).sum == 1


async def test_a_message_is_its_events(parts: Parts) -> None:
    """A message's events come in its order and in pages, each with where it is now."""
    async with connection(parts.dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ('hook', 'webhook', 'http://127.0.0.1', '{usage.batch}')"
        )
        await parts.store(*(event(number) for number in range(1, 6)))
        message = await admin.fetchval("select id::text from tallygate.outbox")
        await admin.execute(
            "alter table tallygate.event_key disable trigger user;"
            "delete from tallygate.event_key where event_id = 'event-2'"
        )
    found = await parts.reads.message(message, 0, 3)
    assert found is not None
    assert (found.type, found.events_count) == ("usage.batch", 5)
    assert [(each.event_id, each.where) for each in found.events] == [
        ("event-1", Whereabouts.LEDGER),
        ("event-2", Whereabouts.NOWHERE),
        ("event-3", Whereabouts.LEDGER),
    ]
    assert [(each.destination, each.state) for each in found.deliveries] == [("hook", "pending")]
    rest = await parts.reads.message(message, 3, 3)
    assert rest is not None
    assert [each.event_id for each in rest.events] == ["event-4", "event-5"]


async def test_unknown_messages_are_none(parts: Parts) -> None:
    """An id of no message finds nothing, and what is no id is refused by field."""
    assert await parts.reads.message("00000000-0000-0000-0000-000000000000", 0, 1) is None
    with pytest.raises(InvalidField) as raised:
        await parts.reads.message("order-1", 0, 1)
    assert raised.value.field == "message"
