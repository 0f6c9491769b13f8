"""Postgres is away for longer than the streams may grow: what is accepted is kept, and bounded."""

from pathlib import Path

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.redis import keys
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import Server, site
from tests.servers import connection, eventually

TENANT = "acme"
ENTRIES_MAX = 30
RECORDS = 50
# A quarter of a second of a caller that waits for each answer.
OVERSHOOT_MAX = 2_000
WAIT_S = 30.0


async def consumed(serve: Server, number: int) -> bool:
    """Charge once; say whether it was granted, False for refused as unavailable."""
    async with quota(serve.address) as stub:
        call = stub.CheckAndConsume(consume(f"op-{number}", 1, TENANT), timeout=CALL_TIMEOUT_S)
        code = await call.code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        return code is grpc.StatusCode.OK and bool((await call).allowed)


async def recorded(serve: Server, number: int) -> bool:
    """Record one event; say whether it was accepted without Redis."""
    async with grpc.aio.insecure_channel(serve.address) as channel:
        request = usage_pb2.RecordUsageRequest(
            tenant_id=TENANT, meter="requests", amount=1, event_id=f"event-{number}"
        )
        stub = usage_pb2_grpc.UsageServiceStub(channel)
        return bool((await stub.RecordUsage(request, timeout=CALL_TIMEOUT_S)).degraded)


@pytest.mark.slow
async def test_full_streams_push_back(
    tmp_path: Path, own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres
) -> None:
    """At the bound hard limits refuse, records go to the journal; afterwards the ledger has all."""
    await migrate(own_postgres.dsn)
    shared = {"redis_url": own_redis.url, "shards": 1}
    async with site(tmp_path, **shared) as place:
        file = catalogs.write(tmp_path, catalogs.OPEN)
        await place.start("ingest", postgres_dsn=own_postgres.dsn)
        serve = await place.start("serve", "--catalog", file, stream_entries_max=ENTRIES_MAX)
        numbers = iter(range(1_000_000))
        granted = 0

        async def grants() -> bool:
            nonlocal granted
            answer = await consumed(serve, next(numbers))
            granted += answer
            return answer

        async def pushes_back() -> bool:
            return not await grants()

        await eventually(grants, WAIT_S, what="the counters' opening")
        await own_postgres.kill()
        await eventually(pushes_back, WAIT_S, what="a full stream")
        assert await serve.metric("tallygate_streams_full") == 1
        client = Redis.from_url(own_redis.url, socket_timeout=CALL_TIMEOUT_S)
        length = await client.xlen(keys.stream(0))
        assert ENTRIES_MAX <= length < ENTRIES_MAX + OVERSHOOT_MAX
        # Accepted all the same, and on the disk.
        assert all([await recorded(serve, number) for number in range(RECORDS)])
        assert await client.xlen(keys.stream(0)) == length
        await client.aclose()

        await own_postgres.start()
        await eventually(grants, WAIT_S, what="room in the stream")

        async def stored() -> bool:
            async with connection(own_postgres.dsn) as admin:
                count: int = await admin.fetchval("select count(*) from tallygate.usage_event")
            return count == granted + RECORDS

        await eventually(stored, WAIT_S, what="every event in the ledger")

        async def empty() -> bool:
            return await serve.metric("tallygate_streams_full") == 0

        await eventually(empty, what="the metric's fall")
