"""An ingester in a process of its own, to be killed by a test.

`python -m tests.faults.ingest_process REDIS_URL POSTGRES_DSN CONSUMER`: says `committed` after its
first transaction, in place of acknowledging it, and then waits to be killed.
"""

import asyncio
import sys
from collections.abc import Sequence

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.event import StreamEntry
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tests.faults.world import SHARDS, SystemClock


class NeverAcknowledges(RedisUsageStream):
    """Stops where the crash is to happen: after the commit, before the acknowledgement."""

    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Say so, and wait for the end."""
        sys.stdout.write("committed\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def main(redis_url: str, dsn: str, consumer: str) -> None:
    """Run once, which never ends."""
    stream = NeverAcknowledges(connect(redis_url, 10_000), StreamOptions(SHARDS, consumer))
    parts = IngestParts(
        stream, PostgresLedger(Postgres(dsn)), ProtobufEventEncoder(), SystemClock()
    )
    await Ingest(parts, IngestOptions(events_max=5)).run_once()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
