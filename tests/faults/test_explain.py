"""What stands beside an event's own way: copies under other numbers, and their corrections."""

from typing import Any, cast

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.event_records import PostgresEventRecords
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream_search import RedisStreamSearch
from tallygate.domain.ids import EventId, TenantId
from tallygate.flow.explain import Ending, Explain, ExplainParts
from tests.faults.world import SHARDS, World, world
from tests.servers import connection
from tests.usage_events import SOURCE, event

ACME = TenantId("acme")
FIRST = EventId("event-1")


def telling(on: World) -> Explain:
    """Return what tells stories of that world."""
    return Explain(
        ExplainParts(
            records=PostgresEventRecords(on.postgres),
            catalogs=PostgresCatalogStore(on.postgres),
            clock=SystemClock(),
            streams=RedisStreamSearch(on.client, SHARDS),
        )
    )


async def test_a_copy_under_another_number_is_told(redis_url: str, postgres_dsn: str) -> None:
    """While it is in a stream it is a duplicate; once ingested, its correction is shown."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 2)
        await on.ingest("a").run_once()
        async with connection(postgres_dsn) as admin:
            await admin.execute(
                "insert into tallygate.counter_epoch (shard, epoch) values (0, 'e1')"
            )
        payload = ProtobufEventEncoder().encode([event(1, amount=1)])
        fields = {"t": "1795168800000009", "s": SOURCE, "e": "e1", "u9+1": payload}
        await on.client.xadd(keys.stream(0), cast(Any, fields))
        (chapter,) = (await telling(on).story(FIRST, ACME)).chapters
        assert (chapter.ending, chapter.waiting) == (Ending.PERSISTED, ())
        assert [each.event.source_seq for each in chapter.duplicates] == [9]
        await on.ingest("a").run_once()
        (chapter,) = (await telling(on).story(FIRST, ACME)).chapters
        assert chapter.duplicates == ()
        (due,) = chapter.corrections
        assert (due.takes_back, due.number, due.outcome) == (True, f"{SOURCE}/0/9", "")
        assert not (await telling(on).story(FIRST, TenantId("other"))).known


async def test_without_a_stream_the_ledger_still_tells(redis_url: str, postgres_dsn: str) -> None:
    """A Redis that is away is said, and what the ledger knows is told."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 2)
        await on.ingest("a").run_once()
        parts = ExplainParts(
            PostgresEventRecords(on.postgres), PostgresCatalogStore(on.postgres), SystemClock()
        )
        story = await Explain(parts).story(FIRST)
        assert (story.unsearched, len(story.chapters)) == ("no Redis is set", 1)
