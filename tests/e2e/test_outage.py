"""A sidecar process that is told to stop while Redis is away: what it granted is kept or told."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import quota_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import Server, Site, site
from tests.servers import eventually

TENANT = "acme"
CALLS = 20
GRACE_MS = 2_000
ALLOWING = catalogs.OPEN.replace("limit: 1_000_000}", "limit: 1_000_000, on_outage: allow}")


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis) -> AsyncIterator[Site]:
    """An installation with a Redis of its own."""
    settings = {"redis_url": own_redis.url, "drain_grace_ms": GRACE_MS}
    async with site(tmp_path, **settings) as place:
        yield place


async def granted_without(place: Site, redis: EmbeddedRedis) -> Server:
    """Start a sidecar, stop Redis under it, and have it grant calls."""
    file = catalogs.write(place.folder, ALLOWING)
    serve = await place.start("serve", "--catalog", file)
    async with quota(serve.address) as stub:
        first = await stub.CheckAndConsume(consume("first", 1, TENANT), timeout=CALL_TIMEOUT_S)
        assert not first.degraded
        await redis.stop()
        for number in range(CALLS):
            charge = consume(f"out-{number}", 1, TENANT)
            reply = await stub.CheckAndConsume(charge, timeout=CALL_TIMEOUT_S)
            assert reply.allowed
            assert reply.degraded
            assert reply.durability == BUFFERED
    assert await serve.metric("tallygate_outage_backlog_operations") == CALLS
    assert await serve.metric("tallygate_breaker_state") == 2
    return serve


async def used(place: Site) -> int:
    """Return what the tenant has used, by a sidecar that starts afresh."""
    serve = await place.start("serve", "--catalog", place.folder / "catalog.yaml")
    async with quota(serve.address) as stub:
        request = quota_pb2.GetQuotaRequest(tenant_id=TENANT)
        reply = await stub.GetQuota(request, timeout=CALL_TIMEOUT_S)
    return reply.limits[0].used


async def test_a_stopping_sidecar_waits_for_redis(place: Site, own_redis: EmbeddedRedis) -> None:
    """Redis that comes back within the grace is told of every grant before the process ends."""
    serve = await granted_without(place, own_redis)
    ending = asyncio.create_task(serve.terminate())
    await own_redis.start()
    assert await ending == 0
    assert await used(place) == 1 + CALLS


async def test_a_stopping_sidecar_tells_what_is_lost(place: Site, own_redis: EmbeddedRedis) -> None:
    """After the grace the process ends, and its log says how many grants nobody will count."""
    serve = await granted_without(place, own_redis)
    assert await serve.terminate() == 0
    told = [json.loads(line) for line in serve.process.err + serve.process.out if "{" in line]
    [lost] = [line for line in told if line.get("event") == "outage_backlog_lost"]
    assert lost["operations"] == CALLS
    await own_redis.start()
    assert await used(place) == 1


async def test_a_sidecar_recovers_by_itself(place: Site, own_redis: EmbeddedRedis) -> None:
    """Once Redis is back, the circuit closes and the backlog is handed over, without a call."""
    serve = await granted_without(place, own_redis)
    await own_redis.start()

    async def recovered() -> bool:
        waiting = await serve.metric("tallygate_outage_backlog_operations")
        return not waiting and not await serve.metric("tallygate_breaker_state")

    await eventually(recovered, what="a closed circuit and an empty backlog")
    assert await serve.terminate() == 0
    assert await used(place) == 1 + CALLS
