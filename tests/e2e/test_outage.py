"""A sidecar process that stops or dies while Redis is away: what it granted is counted once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2, usage_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import FREE, Server, Site, site, tallygate
from tests.servers import eventually

TENANT = "acme"
CALLS = 20
GRACE_MS = 2_000
ALLOWING = catalogs.OPEN.replace("limit: 1_000_000}", "limit: 1_000_000, on_outage: allow}")


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis) -> AsyncIterator[Site]:
    """An installation with a Redis of its own."""
    settings = {
        "redis_url": own_redis.url,
        "drain_grace_ms": GRACE_MS,
        # There is no ledger here to rebuild counters from.
        "counter_rebuild": "none",
    }
    async with site(tmp_path, **settings) as place:
        yield place


def record(number: int) -> usage_pb2.RecordUsageRequest:
    """Return an event to record."""
    return usage_pb2.RecordUsageRequest(
        tenant_id=TENANT, meter="requests", amount=1, event_id=f"event-{number}"
    )


@asynccontextmanager
async def usage(address: str) -> AsyncIterator["usage_pb2_grpc.UsageServiceAsyncStub"]:
    """Lend the usage service at an address."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield usage_pb2_grpc.UsageServiceStub(channel)


def told(serve: Server, event: str) -> list[dict[str, Any]]:
    """Return what a process has logged of an event."""
    lines = [json.loads(line) for line in serve.process.err + serve.process.out if "{" in line]
    return [line for line in lines if line.get("event") == event]


async def granted_without(
    place: Site, redis: EmbeddedRedis, durability: int = event_pb2.DURABILITY_BUFFERED
) -> Server:
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
            assert reply.durability == durability
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
    """Without a journal its log says after the grace how many grants nobody will count."""
    place.settings["journal"] = "off"
    serve = await granted_without(place, own_redis, event_pb2.DURABILITY_UNSPECIFIED)
    assert await serve.terminate() == 0
    [lost] = told(serve, "outage_backlog_lost")
    assert lost["operations"] == CALLS
    await own_redis.start()
    assert await used(place) == 1


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_the_next_process_goes_on(
    place: Site, own_redis: EmbeddedRedis, *, killed: bool
) -> None:
    """What was granted or recorded without Redis is counted once by whoever opens the journal."""
    serve = await granted_without(place, own_redis)
    records = [record(number) for number in range(CALLS)]
    async with usage(serve.address) as recording:
        for each in records[2:]:
            reply = await recording.RecordUsage(each, timeout=CALL_TIMEOUT_S)
            assert (reply.durability, reply.degraded) == (event_pb2.DURABILITY_JOURNAL, True)
        message = usage_pb2.StreamRecordUsageRequest(requests=records[:2])
        # Stubs know nothing of calls that are written to and read from.
        replies = cast(Any, recording.StreamRecordUsage)(iter([message]), timeout=CALL_TIMEOUT_S)
        async for each in replies:
            levels = [result.response.durability for result in each.results]
            assert levels == [event_pb2.DURABILITY_JOURNAL] * 2
    if killed:
        await serve.process.kill()
    else:
        assert await serve.terminate() == 0
        [kept] = told(serve, "outage_backlog_kept")
        assert kept["operations"] == 2 * CALLS
    # Redis is still away: the successor has all of it, and remembers what was granted.
    folder = place.folder / f"process-{place.count}"
    file = place.folder / "catalog.yaml"
    serve = await place.start("serve", "--catalog", file, data_dir=folder)
    assert await serve.metric("tallygate_outage_backlog_operations") == 2 * CALLS
    async with quota(serve.address) as stub:
        again = await stub.CheckAndConsume(consume("out-0", 1, TENANT), timeout=CALL_TIMEOUT_S)
        assert again.replayed
    async with usage(serve.address) as recording:
        # Of a record nobody knows that it is a repeat, until Redis tells.
        reply = await recording.RecordUsage(records[0], timeout=CALL_TIMEOUT_S)
        assert reply.durability == event_pb2.DURABILITY_JOURNAL
    await own_redis.start()

    async def handed_over() -> bool:
        return not await serve.metric("tallygate_journal_pending_operations")

    await eventually(handed_over, what="everything is handed over")
    assert await serve.terminate() == 0
    assert await used(place) == 1 + 2 * CALLS


async def test_two_sidecars_never_share_a_folder(place: Site) -> None:
    """The second says so and ends, with the first undisturbed."""
    file = catalogs.write(place.folder, ALLOWING)
    await place.start("serve", "--catalog", file)
    folder = place.folder / f"process-{place.count}"
    second = await tallygate(
        *("serve", "--catalog", file),
        **{**place.settings, "data_dir": folder, "grpc_address": FREE, "ops_address": FREE},
    )
    assert second.code == 1
    assert "another process has the journal" in second.err + second.out


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
