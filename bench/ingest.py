"""How fast one ingester moves events from the streams to the ledger.

Guarantees: what is timed is the product's own step, on real Redis and Postgres, from a full stream
to an empty one; the ledger is asked whether it has every event.
Refuses to know: gRPC.
"""

import time
from datetime import UTC, datetime

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_reader import PostgresUsageReader
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.decision import Decided, Mode, Operation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, SourceId, TenantId, shard_of
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.ports import UsageQuery

SHARDS = 16
CALLS = 500


async def fill_and_drain(redis_url: str, dsn: str, *, events: int, tenants: int) -> float:
    """Fill the streams with events of so many tenants; return how many a second were ingested."""
    await migrate(dsn)
    client, postgres = connect(redis_url, 10_000), Postgres(dsn)
    try:
        source = SourceId("bench")
        store = RedisQuotaStore(client, StoreOptions(source, SHARDS, 60_000))
        for start in range(0, events, CALLS):
            numbers = range(start, min(start + CALLS, events))
            outcomes = await store.decide([_operation(number, tenants) for number in numbers])
            assert all(isinstance(outcome, Decided) for outcome in outcomes)
        ledger = PostgresLedger(postgres)
        stream = RedisUsageStream(client, StreamOptions(SHARDS, consumer="bench"))
        parts = IngestParts(stream, ledger, ProtobufEventEncoder(), SystemClock())
        ingest = Ingest(parts, IngestOptions(block_ms=1))
        stored = 0
        started = time.perf_counter()
        while stored < events:
            stored += (await ingest.run_once()).persisted.events
        elapsed = time.perf_counter() - started
        [total] = await PostgresUsageReader(postgres).totals(UsageQuery())
        assert total.count == events, f"{total.count} of {events} events are in the ledger"
    finally:
        await postgres.close()
        await client.aclose()
    return events / elapsed


def _operation(number: int, tenants: int) -> Operation:
    tenant = TenantId(f"tenant-{number % tenants}")
    identity = OperationId(f"event-{number}")
    event = UsageEvent(
        event_id=EventId(identity),
        tenant_id=tenant,
        meter=MeterName("requests"),
        amount=1,
        event_time_us=int(datetime.now(UTC).timestamp() * 1e6),
        operation_id=identity,
        dimensions={"method": "GET", "status": "200"},
    )
    return Operation(
        mode=Mode.RECORD,
        tenant_id=tenant,
        shard=shard_of(tenant, SHARDS),
        event_count=1,
        payload=ProtobufEventEncoder().encode([event]),
    )
