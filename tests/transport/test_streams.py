"""Methods that send or take many messages, health and reflection, on each transport."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tallygate.api.transport import TransportName
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tests.faults import http2
from tests.servers import eventually
from tests.sidecar import QUOTA, USAGE, channel, failure, refused
from tests.transport.world import World, world

Code = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WAIT_S = 10.0


def watch(opened: grpc.aio.Channel, tenant: str, **options: Any) -> Any:
    """Open a stream."""
    stub = quota_pb2_grpc.QuotaServiceStub(opened)
    return stub.WatchQuota(quota_pb2.WatchQuotaRequest(tenant_id=tenant), **options)


async def read(call: Any) -> Any:
    """Return the next message, which must come soon."""
    async with asyncio.timeout(WAIT_S):
        return await call.read()


async def test_a_stream_sends_its_messages_and_ends(it: World) -> None:
    """In order, then OK."""
    async with channel(it.address) as opened:
        call = watch(opened, "acme")
        assert [each.plan async for each in call] == ["0", "1", "2"]
        assert await call.code() is Code.OK
    assert it.told.codes == {("WatchQuota", "OK"): 1}


async def test_a_stream_fails_after_its_messages(it: World) -> None:
    """What was sent arrives before the status, and the status has its details."""
    async with channel(it.address) as opened:
        call = watch(opened, "away")
        assert [(await read(call)).plan for _ in range(3)] == ["0", "1", "2"]
        found = await failure(call.read())
        assert (found.code, found.reason) == (Code.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        assert found.pushback_ms == "1234"


async def test_a_stream_has_no_deadline_but_its_callers(transport: TransportName) -> None:
    """The default is for calls that are one message."""
    async with world(transport, default_deadline_s=0.1) as it, channel(it.address) as opened:
        lasting = watch(opened, "hold")
        for _ in range(3):
            await read(lasting)
        short = watch(opened, "hold", timeout=0.3)
        for _ in range(3):
            await read(short)
        assert (await refused(read(short))).code() is Code.DEADLINE_EXCEEDED
        assert not lasting.done()
        it.quota.let.set()
        assert await read(lasting) is grpc.aio.EOF


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_reader_that_goes_ends_its_stream(it: World, how: str) -> None:
    """Whatever the method waits for."""
    async with channel(it.address) as opened:
        call = watch(opened, "hold")
        for _ in range(3):
            await read(call)
        if how == "cancel":
            call.cancel()
            await eventually(lambda: it.told.inside == 0, what="its end")
    await eventually(lambda: it.told.inside == 0, what="its end")
    assert (it.quota.cancelled, it.told.codes) == (1, {("WatchQuota", "CANCELLED"): 1})


async def test_a_reader_that_does_not_read_holds_up_itself_alone(it: World) -> None:
    """Its messages wait in the method, not in memory; others are served meanwhile."""
    async with (
        http2.rude(it.address) as deaf,
        channel(it.address) as opened,
    ):
        message = quota_pb2.WatchQuotaRequest(tenant_id="flood").SerializeToString()
        for _ in range(20):
            deaf.message(deaf.ask(f"/{QUOTA}/WatchQuota"), message)
        await eventually(lambda: it.quota.begun == 20, what="all streams begun")
        for _ in range(50):
            assert [each.plan async for each in watch(opened, "acme")] == ["0", "1", "2"]
        # 64 KiB of a window and a message or two that wait for it, 100 KB each.
        assert it.quota.written - 150 < 20 * 20
    await eventually(lambda: it.told.inside == 0, what="the deaf one's end")
    assert it.quota.cancelled == 20


async def test_a_stream_both_ways_is_answered_in_turn(it: World) -> None:
    """Message by message, to the end that the caller sets."""
    async with channel(it.address) as opened:
        call = usage_pb2_grpc.UsageServiceStub(opened).StreamRecordUsage()
        for count in (1, 0, 5):
            requests = [usage_pb2.RecordUsageRequest() for _ in range(count)]
            await call.write(usage_pb2.StreamRecordUsageRequest(requests=requests))
            assert len((await read(call)).results) == count
        await call.done_writing()
        assert await read(call) is grpc.aio.EOF
    await eventually(lambda: it.told.codes == {("StreamRecordUsage", "OK"): 1}, what="its end")


async def test_health_is_asked_and_watched(it: World) -> None:
    """By service; one that is not there is NOT_FOUND; a watcher sees the end coming."""
    async with channel(it.address) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        for service in ("", QUOTA, USAGE):
            asked = health_pb2.HealthCheckRequest(service=service)
            assert (await stub.Check(asked)).status == SERVING
        nope = health_pb2.HealthCheckRequest(service="nope")
        assert (await refused(stub.Check(nope))).code() is Code.NOT_FOUND
        call = stub.Watch(health_pb2.HealthCheckRequest(service=QUOTA))
        assert (await read(call)).status == SERVING
        stopping = asyncio.ensure_future(it.server.stop(2.0))
        assert (await read(call)).status == NOT_SERVING
        await stopping
    # No part of the product: neither counted nor bounded with it.
    assert it.told.codes == {}


async def test_reflection_lists_the_services(it: World) -> None:
    """As grpcurl asks for them."""
    async with channel(it.address) as opened:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        found = await read(call)
        names = {each.name for each in found.list_services_response.service}
        assert {QUOTA, USAGE, "grpc.health.v1.Health"} <= names
        call.cancel()
