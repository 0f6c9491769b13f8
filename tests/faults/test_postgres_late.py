"""Late events, and a past day that is handed in again: rollups have each event in its own bucket.

Closing periods is not there yet; until it is, a late event changes the bucket that it belongs to.
"""

from typing import Final

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.event import UsageEvent
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import LedgerBatch
from tallygate.ports.replay import ReplayQuery
from tests.faults.world import SHARDS, World, world
from tests.servers import connection, eventually
from tests.usage_events import NOON_US, event

MIDNIGHT_US: Final = NOON_US - NOON_US % DAY_US
LATE_DAYS: Final = 34


async def append(on: World, events: list[UsageEvent], source: str) -> None:
    """Append events to the streams, as a source of its own would that numbers them from 1."""
    encoder = ProtobufEventEncoder()
    for number, each in enumerate(events, 1):
        await on.client.xadd(
            keys.stream(number % SHARDS),
            {"t": str(NOON_US), "s": source, "e": "e2", f"u{number}+1": encoder.encode([each])},
        )


async def drain(on: World) -> None:
    """Ingest until nothing waits."""
    ingest = on.ingest("a")

    async def drained() -> bool:
        await ingest.run_once()
        return await on.drained()

    await eventually(drained, what="the stream's end")


async def rollups(on: World) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every rollup."""
    async with connection(on.dsn) as admin:
        return {
            name: [
                tuple(row)
                for row in await admin.fetch(
                    "select tenant_id, meter, tallygate.microseconds(bucket), count, sum, max, min"
                    f" from tallygate.usage_{name} order by 1, 2, 3"
                )
            ]
            for name in ("minute", "hour", "day")
        }


async def messages(on: World) -> int:
    """Return how many messages have been written."""
    async with connection(on.dsn) as admin:
        return int(await admin.fetchval("select count(*) from tallygate.outbox"))


async def test_late_event_changes_its_own_buckets_alone(redis_url: str, postgres_dsn: str) -> None:
    """An event of weeks ago, on a bucket's edge, is added where its time lies, and nowhere else."""
    late_us = MIDNIGHT_US - LATE_DAYS * DAY_US
    async with world(redis_url, postgres_dsn) as on:
        first = [event(1, event_time_us=late_us, amount=5), event(2, amount=7)]
        await append(on, first, "one.e1")
        await drain(on)
        before = await rollups(on)
        late = [
            event(3, event_time_us=late_us + 1, amount=2),
            # The last microsecond of the day before.
            event(4, event_time_us=late_us - 1, amount=3),
        ]
        await append(on, late, "two.e1")
        await drain(on)
        after = await rollups(on)
    for name, length_us in (("minute", MINUTE_US), ("hour", HOUR_US), ("day", DAY_US)):
        today = [row for row in before[name] if row[2] != late_us]
        assert after[name] == [
            ("acme", "requests", late_us - length_us, 1, 3, 3, 3),
            ("acme", "requests", late_us, 2, 7, 5, 2),
            *today,
        ]
        assert [row[3:] for row in today] == [(1, 7, 7, 7)]


async def test_replay_of_a_past_day_changes_nothing(redis_url: str, postgres_dsn: str) -> None:
    """A day's events, read from the ledger and handed in anew by another source, are duplicates."""
    async with world(redis_url, postgres_dsn) as on:
        events = [
            event(number, amount=number, event_time_us=MIDNIGHT_US + number * HOUR_US // 4)
            for number in range(1, 61)
        ]
        async with connection(postgres_dsn) as admin:
            await admin.execute(
                "insert into tallygate.destination (name, kind, url, types)"
                " values ('hook', 'webhook', 'http://localhost', array['usage.batch'])"
            )
        refund = event(61, amount=-3, refund_of="event-9", event_time_us=NOON_US)
        await append(on, [*events, refund], "one.e1")
        await drain(on)
        sums, before, told = await on.sums(), await rollups(on), await messages(on)
        assert told > 0
        day = ReplayQuery(None, MIDNIGHT_US, MIDNIGHT_US + DAY_US)
        read = [
            each async for page in PostgresUsageReplay(on.postgres).events(day) for each in page
        ]
        assert len(read) == 61
        for source in ("archive.e1", "archive.e2"):
            await append(on, read, source)
            await drain(on)
        assert await on.sums() == sums
        assert await rollups(on) == before
        assert await messages(on) == told
        async with connection(postgres_dsn) as admin:
            seen = await admin.fetchval(
                "select count(*) from tallygate.source_progress where source_id like 'archive.%'"
            )
            assert seen == 2 * SHARDS


async def test_duplicates_within_a_batch_count_once(postgres_dsn: str) -> None:
    """The same event twice in a transaction, once late, stays as it came first."""
    async with world("redis://127.0.0.1:1", postgres_dsn) as on:
        from_before = event(1, amount=4)
        again = event(1, amount=4, event_time_us=NOON_US - DAY_US)
        ledger = PostgresLedger(on.postgres)
        await ledger.persist(LedgerBatch((from_before, again)))
        await ledger.persist(LedgerBatch((again,)))
        days = (await rollups(on))["day"]
    assert [row[2:] for row in days] == [(MIDNIGHT_US, 1, 4, 4, 4)]
