"""A real stream and a real ledger together, as faults are tested on them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tests.servers import connection
from tests.usage_events import SOURCE, event

SHARDS: Final = 4


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never run back."""
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class World:
    """Streams and ledger. `client` fills the streams and is also the ingesters'."""

    client: Redis
    postgres: Postgres
    dsn: str
    shards: int = SHARDS

    async def fill(self, first: int, last: int) -> None:
        """Append the events of these numbers, two by two, over all shards."""
        encoder = ProtobufEventEncoder()
        for number in range(first, last + 1, 2):
            pair = [event(each, amount=each) for each in range(number, min(number + 2, last + 1))]
            await self.client.xadd(
                keys.stream(number // 2 % self.shards),
                {
                    "t": "1795168800000007",
                    "s": SOURCE,
                    "e": "e1",
                    f"u{number}+{len(pair)}": encoder.encode(pair),
                },
            )

    def stream(self, consumer: str) -> RedisUsageStream:
        """Return the stream as that consumer reads it."""
        return RedisUsageStream(self.client, StreamOptions(self.shards, consumer))

    def ingest(self, consumer: str, **options: int) -> Ingest:
        """Return an ingester that never waits long."""
        parts = IngestParts(
            self.stream(consumer),
            PostgresLedger(self.postgres),
            ProtobufEventEncoder(),
            SystemClock(),
        )
        return Ingest(parts, IngestOptions(**{"block_ms": 1, "claim_every_ms": 0, **options}))

    async def drained(self) -> bool:
        """Say whether nothing waits in any shard."""
        depths = await self.stream("looks").depths()
        return not any(depth.entries for depth in depths)

    async def sums(self) -> tuple[int, int, int, int]:
        """Return how many events there are, their sum, and the same of the minute rollup."""
        async with connection(self.dsn) as admin:
            row = await admin.fetchrow(
                "select (select count(*) from tallygate.usage_event),"
                " (select coalesce(sum(amount), 0)::bigint from tallygate.usage_event),"
                " (select coalesce(sum(count), 0)::bigint from tallygate.usage_minute),"
                " (select coalesce(sum(sum), 0)::bigint from tallygate.usage_minute)"
            )
        assert row is not None
        return row[0], row[1], row[2], row[3]


@asynccontextmanager
async def world(redis_url: str, dsn: str, shards: int = SHARDS) -> AsyncIterator[World]:
    """Connect to both for the length of a block."""
    client = connect(redis_url, 10_000, connections_max=8)
    postgres = Postgres(dsn)
    try:
        yield World(client, postgres, dsn, shards)
    finally:
        await client.aclose()
        await postgres.close()


def expected(last: int) -> tuple[int, int, int, int]:
    """Return the sums of the events from 1 to `last`, each stored once."""
    total = last * (last + 1) // 2
    return last, total, last, total
