"""What every `Ledger` and `UsageReader` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_reader import PostgresUsageReader
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import (
    Ledger,
    LedgerBatch,
    Persisted,
    UnstorableBatch,
    UsageQuery,
    UsageReader,
    UsageTotal,
)
from tallygate.testing.ledger import FakeLedger
from tests.servers import connection
from tests.usage_events import NOON_US, burn, crossing, event, low, rejected, span


@dataclass(frozen=True, slots=True)
class Subject:
    """A ledger, and what reads from it."""

    ledger: Ledger
    reader: UsageReader
    dsn: str | None = None
    fake: FakeLedger | None = None

    async def store(self, *events: UsageEvent) -> Persisted:
        """Store events alone."""
        return await self.ledger.persist(LedgerBatch(events))

    async def want(self, *types: str) -> None:
        """Have a destination want these types of message."""
        if self.fake is not None:
            self.fake.wanted = set(types)
            return
        assert self.dsn is not None
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.destination (name, kind, url, types)"
                " values ('hook', 'webhook', 'http://127.0.0.1', $1)",
                list(types),
            )


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of ledger, empty."""
    if dsn is None:
        fake = FakeLedger()
        yield Subject(fake, fake, fake=fake)
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresLedger(postgres), PostgresUsageReader(postgres), dsn=dsn)
    await postgres.close()


async def test_stores_an_event_once(subject: Subject) -> None:
    """An event that comes again is a duplicate, and counts in no rollup."""
    assert await subject.store(event(1), event(2)) == Persisted(events=2)
    assert await subject.store(event(2), event(3)) == Persisted(events=1, duplicates=1)
    rows = await subject.reader.usage(UsageQuery())
    assert [(row.count, row.sum) for row in rows] == [(3, 3)]


async def test_first_content_of_an_event_wins(subject: Subject) -> None:
    """The same id with other content is a duplicate, in one batch and over batches."""
    counted = await subject.store(event(1, amount=5), event(1, amount=7))
    assert counted == Persisted(events=1, duplicates=1)
    assert await subject.store(event(1, amount=9)) == Persisted(duplicates=1)
    assert await subject.reader.totals(UsageQuery()) == [
        UsageTotal(MeterName("requests"), tenants=1, count=1, sum=5)
    ]


async def test_tenants_have_their_own_event_ids(subject: Subject) -> None:
    """The same event id of two tenants is two events."""
    stored = await subject.store(event(1), event(1, tenant_id=TenantId("other")))
    assert stored == Persisted(events=2)


async def test_late_event_counts_where_it_happened(subject: Subject) -> None:
    """The bucket is that of the event's own time, at every length."""
    late = NOON_US - 3 * DAY_US - 2 * MINUTE_US - 1
    await subject.store(event(1), event(2, event_time_us=late, amount=4))
    for bucket, length in (("minute", MINUTE_US), ("hour", HOUR_US), ("day", DAY_US)):
        rows = await subject.reader.usage(UsageQuery(bucket=bucket))
        assert [(row.bucket_us, row.sum) for row in rows] == [
            (late - late % length, 4),
            (NOON_US - NOON_US % length, 1),
        ]


async def test_rollups_add_up_over_batches(subject: Subject) -> None:
    """Count, sum, maximum and minimum of a bucket are those of all its events."""
    await subject.store(event(1, amount=5), event(2, amount=2))
    await subject.store(event(3, amount=9), event(4, amount=2**53 - 1))
    for bucket in ("minute", "hour", "day", "total"):
        (row,) = await subject.reader.usage(UsageQuery(bucket=bucket))
        assert (row.count, row.sum, row.max, row.min) == (4, 2**53 + 15, 2**53 - 1, 2)


async def test_usage_is_read_in_pages(subject: Subject) -> None:
    """Pages follow each other by tenant, meter and bucket, and miss none."""
    tenants = [TenantId(name) for name in ("a", "B", "ü", "b")]
    await subject.store(
        *(
            event(number, tenant_id=tenant, event_time_us=NOON_US + number * MINUTE_US)
            for tenant in tenants
            for number in range(3)
        )
    )
    for bucket, rows in (("minute", 12), ("total", 4)):
        found = []
        after: tuple[str, str, int] | None = None
        while page := await subject.reader.usage(UsageQuery(bucket=bucket, limit=5, after=after)):
            found += page
            after = (page[-1].tenant_id, page[-1].meter, page[-1].bucket_us)
        assert len(found) == rows
        assert found == sorted(found, key=lambda row: (row.tenant_id, row.meter, row.bucket_us))


async def test_usage_is_read_for_a_stretch_a_tenant_a_meter(subject: Subject) -> None:
    """A stretch includes its beginning and not its end; filters hold for rows and totals."""
    await subject.store(
        event(1, event_time_us=NOON_US - 1),
        event(2, event_time_us=NOON_US, amount=10),
        event(3, event_time_us=NOON_US + MINUTE_US, amount=100),
        event(4, tenant_id=TenantId("other"), amount=1_000),
        event(5, meter=MeterName("bytes"), amount=10_000),
    )
    query = UsageQuery(
        TenantId("acme"), MeterName("requests"), NOON_US, NOON_US + MINUTE_US, bucket="minute"
    )
    assert [row.sum for row in await subject.reader.usage(query)] == [10]
    assert [total.sum for total in await subject.reader.totals(query)] == [10]
    totals = await subject.reader.totals(UsageQuery())
    assert [(each.meter, each.tenants, each.count) for each in totals] == [
        ("bytes", 1, 1),
        ("requests", 2, 4),
    ]


async def test_progress_knows_its_gaps(subject: Subject) -> None:
    """Numbers that are missing are ranges; when they come, nothing is missing."""
    await subject.ledger.persist(LedgerBatch((), ranges=(span(1, 3), span(8, 9), span(2, 4))))
    await subject.ledger.persist(LedgerBatch((), ranges=(span(6, 6), span(3, 5, lane=1))))
    first, second = await subject.ledger.progress()
    assert (first.contiguous_seq, first.highest_seq, first.seen) == (4, 9, 7)
    assert first.gaps == ((5, 5), (7, 7))
    assert (second.source_lane, second.contiguous_seq, second.gaps) == (1, 0, ((1, 2),))
    await subject.ledger.persist(LedgerBatch((), ranges=(span(5, 7),)))
    first = (await subject.ledger.progress())[0]
    assert (first.contiguous_seq, first.seen, first.gaps) == (9, 9, ())


async def test_an_empty_range_marks_nothing(subject: Subject) -> None:
    """An entry that announces no events changes no progress and is no fault."""
    await subject.ledger.persist(LedgerBatch((), ranges=(span(5, 4),)))
    assert await subject.ledger.progress() == []


async def test_dead_letters_are_kept_once(subject: Subject) -> None:
    """What comes again adds no second row; other bytes under the same number do."""
    letters = LedgerBatch((), rejected=(rejected(1), rejected(2)))
    assert (await subject.ledger.persist(letters)).rejected == 2
    assert (await subject.ledger.persist(letters)).rejected == 0
    other = LedgerBatch((), rejected=(rejected(1, payload=b"other"),))
    assert (await subject.ledger.persist(other)).rejected == 1


async def test_crossings_are_told_once_per_window(subject: Subject) -> None:
    """A crossing of the same window comes again in vain; that of the next window counts."""
    await subject.want("limit.threshold_crossed")
    crossings = (crossing(), crossing(used=85), crossing(1_000_000))
    stored = await subject.ledger.persist(LedgerBatch((), crossings))
    assert stored == Persisted(crossings=2, messages=2)
    assert await subject.ledger.persist(LedgerBatch((), crossings)) == Persisted()
    of_users = LedgerBatch((), (crossing(scope="user=7"), crossing(scope="user=8")))
    assert (await subject.ledger.persist(of_users)).crossings == 2
    later = LedgerBatch((), (crossing(window_start_us=NOON_US + DAY_US),))
    assert await subject.ledger.persist(later) == Persisted(crossings=1, messages=1)


async def test_falls_to_low_marks_are_told_once_each(subject: Subject) -> None:
    """The same fall comes again in vain; another mark, or the same one later, counts."""
    await subject.want("balance.low")
    lows = (low(100), low(50), low(100, crossed_at_us=NOON_US + 9), crossing())
    stored = await subject.ledger.persist(LedgerBatch((), lows))
    assert stored == Persisted(crossings=4, messages=3)
    assert await subject.ledger.persist(LedgerBatch((), lows)) == Persisted()


async def test_burns_are_posted_once(subject: Subject) -> None:
    """A burn that the stream gives out again is posted no second time; one beside it is."""
    burns = (burn(0), burn(1, amount=-1), burn(2, grant_seq=0), burn(3, grant_seq=-1))
    assert await subject.ledger.persist(LedgerBatch((), burns=burns)) == Persisted(burns=4)
    again = (*burns, burn(4), burn(4), burn(0, entry_id="1-2"), burn(0, source_lane=1))
    assert await subject.ledger.persist(LedgerBatch((), burns=again)) == Persisted(burns=3)


@pytest.mark.parametrize(
    "fields",
    [{"limit_id": "nul\x00"}, {"amount": 0}, {"amount": 2**63}, {"grant_seq": -2}],
    ids=str,
)
async def test_unstorable_burn_stores_nothing(subject: Subject, fields: dict[str, object]) -> None:
    """A burn that can never be posted refuses the whole batch, its events too."""
    with pytest.raises(UnstorableBatch):
        await subject.ledger.persist(LedgerBatch((event(1),), burns=(burn(0), burn(1, **fields))))
    assert await subject.reader.usage(UsageQuery()) == []
    assert (await subject.ledger.persist(LedgerBatch((), burns=(burn(0),)))).burns == 1


async def test_refund_takes_from_the_sum_alone(subject: Subject) -> None:
    """Count, largest and smallest are of what was used; the refund's own time has its bucket."""
    refund = event(2, amount=-3, refund_of=EventId("event-1"), event_time_us=NOON_US + MINUTE_US)
    await subject.store(event(1, amount=5), refund)
    rows = await subject.reader.usage(UsageQuery(bucket="minute"))
    assert [(row.count, row.sum, row.max, row.min) for row in rows] == [(1, 5, 5, 5), (0, -3, 0, 0)]
    await subject.store(event(3, amount=7, event_time_us=NOON_US + MINUTE_US))
    rows = await subject.reader.usage(UsageQuery(bucket="minute"))
    assert [(row.count, row.sum, row.max, row.min) for row in rows][1] == (1, 4, 7, 7)
    for bucket in ("hour", "day", "total"):
        (row,) = await subject.reader.usage(UsageQuery(bucket=bucket))
        assert (row.count, row.sum, row.max, row.min) == (2, 9, 7, 5)
    (total,) = await subject.reader.totals(UsageQuery())
    assert (total.count, total.sum) == (2, 9)


async def test_refund_may_come_before_its_event(subject: Subject) -> None:
    """Of two ingesters the one with the refund may be first; neither is refused for that."""
    assert (await subject.store(event(2, amount=-3, refund_of=EventId("event-1")))).events == 1
    assert (await subject.store(event(1, amount=3))).events == 1
    (row,) = await subject.reader.usage(UsageQuery())
    assert (row.count, row.sum) == (1, 0)


async def test_messages_are_written_for_who_wants_them(subject: Subject) -> None:
    """Without a destination there are none; with one, of at most 500 new events each."""
    assert (await subject.store(event(1))).messages == 0
    await subject.want("usage.batch")
    stored = await subject.store(*(event(number) for number in range(1, 1_003)))
    assert stored == Persisted(events=1_001, duplicates=1, messages=3)
    assert (await subject.store(event(7))).messages == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"tenant_id": "nul\x00"},
        {"operation_id": "half \ud800"},
        {"dimensions": {"key": "nul\x00"}},
        {"metadata_json": "{"},
        {"metadata_json": '{"a": "\\u0000"}'},
        {"amount": 2**63},
        {"amount": 0},
        {"amount": -1},
        {"amount": 1, "refund_of": "event-1"},
        {"amount": -1, "refund_of": "nul\x00"},
    ],
    ids=str,
)
async def test_unstorable_batch_stores_nothing(subject: Subject, fields: dict[str, object]) -> None:
    """One value that can never be stored refuses the whole batch, by a reason without values."""
    poison = event(2, **fields)
    with pytest.raises(UnstorableBatch) as raised:
        await subject.ledger.persist(LedgerBatch((event(1), poison), ranges=(span(1, 2),)))
    assert "nul" not in raised.value.detail
    assert await subject.reader.usage(UsageQuery()) == []
    assert await subject.ledger.progress() == []


async def test_extreme_amounts_are_exact(subject: Subject) -> None:
    """Sums go beyond 64 bits without loss, and refunds take from them exactly."""
    top = 2**63 - 1
    back = event(3, amount=-top, refund_of=EventId("event-1"))
    await subject.store(event(1, amount=top), event(2, amount=top), event(4, amount=top), back)
    (row,) = await subject.reader.usage(UsageQuery(bucket="day"))
    assert (row.count, row.sum, row.max, row.min) == (3, 2 * top, top, top)


async def test_an_event_is_stored_as_it_is(postgres_dsn: str) -> None:
    """Every field of an event is in its row, exactly."""
    postgres = Postgres(postgres_dsn)
    stored = event(1, amount=7, event_time_us=NOON_US + 123_457, metadata_json='{"a":[1]}')
    await PostgresLedger(postgres).persist(LedgerBatch((stored,)))
    await postgres.close()
    row = await _only_row(postgres_dsn)
    assert row["event_time_us"] == stored.event_time_us
    assert row["received_at_us"] == stored.received_at_us
    assert (row["dimensions"], row["metadata"]) == ('{"path": "/ü"}', '{"a": [1]}')
    assert (row["region"], row["subject_id"], row["counter_epoch"]) == ("eu-1", "", "e1")


async def _only_row(dsn: str) -> asyncpg.Record:
    async with connection(dsn) as admin:
        (row,) = await admin.fetch(
            "select *, tallygate.microseconds(event_time) as event_time_us,"
            " tallygate.microseconds(received_at) as received_at_us from tallygate.usage_event"
        )
    return row
