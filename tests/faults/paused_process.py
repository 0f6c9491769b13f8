"""A relay or an ingester in a process of its own, to be stopped for longer than its lease.

`python -m tests.faults.paused_process relay POSTGRES_DSN URL LEASE_MS` says `sent` before it marks;
`python -m tests.faults.paused_process ingest REDIS_URL POSTGRES_DSN` says `read` before it stores.
Each goes on when it is given a line, and says in JSON what it did.
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.adapters.webhook.sender import WebhookSender
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.ports import Delivery, LedgerBatch, Persisted
from tests.faults.world import SHARDS, SystemClock
from tests.flow.relay_parts import CountingObserver, webhook_config


async def pause(said: str) -> None:
    """Say where we are, and wait for a line."""
    say(said)
    await asyncio.to_thread(sys.stdin.readline)


def say(said: str) -> None:
    """Print at once."""
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


class PausingOutbox(PostgresOutbox):
    """Waits between a send and its mark."""

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Wait, and mark."""
        await pause("sent")
        return await super().delivered(deliveries)


class PausingLedger(PostgresLedger):
    """Waits between a read and its transaction."""

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Wait, and store."""
        await pause("read")
        return await super().persist(batch)


async def relay(dsn: str, url: str, lease_ms: str) -> None:
    """Claim, send, wait, mark."""
    postgres = Postgres(dsn)
    sender = WebhookSender(webhook_config(url), SystemClock())
    options = RelayOptions(lease_ms=int(lease_ms))
    made = Relay(PausingOutbox(postgres), sender, options, CountingObserver())
    counts = await made.run_once()
    say(json.dumps({"delivered": counts.delivered, "stale": counts.stale}))
    await sender.close()
    await postgres.close()


async def ingest(redis_url: str, dsn: str) -> None:
    """Read, wait, store, acknowledge."""
    postgres, client = Postgres(dsn), connect(redis_url, 10_000)
    stream = RedisUsageStream(client, StreamOptions(SHARDS, "paused"))
    parts = IngestParts(stream, PausingLedger(postgres), ProtobufEventEncoder(), SystemClock())
    counts = await Ingest(parts, IngestOptions(block_ms=1)).run_once()
    stored = counts.persisted
    say(json.dumps({"events": stored.events, "duplicates": stored.duplicates}))
    await client.aclose()
    await postgres.close()


if __name__ == "__main__":
    asyncio.run(relay(*sys.argv[2:]) if sys.argv[1] == "relay" else ingest(*sys.argv[2:]))
