"""RecordUsage on a stream, over a real channel: each list is acknowledged, in order."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest

from tallygate.gen.v1 import event_pb2, reason_pb2, usage_pb2, usage_pb2_grpc
from tests.api.test_record_errors import Side, request
from tests.builders import CatalogInMemory, catalog, window
from tests.sidecar import channel, failure, sidecar

MESSAGES = 5


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Side]:
    """A sidecar with one limit."""
    view = CatalogInMemory(catalog(window(limit=1_000)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        yield Side(opened, usage_pb2_grpc.UsageServiceStub(opened), redis_url)


def listed(*requests: usage_pb2.RecordUsageRequest) -> usage_pb2.StreamRecordUsageRequest:
    """Return a message of a stream."""
    return usage_pb2.StreamRecordUsageRequest(requests=requests)


def stream(side: Side) -> Any:
    """Open a stream."""
    return cast(Any, side.usage.StreamRecordUsage)()


async def test_each_list_is_acknowledged_before_the_next_is_sent(side: Side) -> None:
    """A caller may wait for each; the events are in the store by then, with their durability."""
    call = stream(side)
    async with asyncio.timeout(10):
        for number in range(MESSAGES):
            events = [request(event_id=f"{number}-{each}") for each in range(3)]
            await call.write(listed(*events))
            reply = await call.read()
            answers = [result.response for result in reply.results]
            assert [answer.event_id for answer in answers] == [each.event_id for each in events]
            assert {answer.durability for answer in answers} == {event_pb2.DURABILITY_REDIS}
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    stored = [event for entry in await side.stored() for event in entry.events]
    assert len(stored) == 3 * MESSAGES


async def test_a_caller_need_not_wait(side: Side) -> None:
    """What is sent ahead is acknowledged in order, a repeat as such, a bad event by itself."""
    call = stream(side)
    async with asyncio.timeout(10):
        for _ in range(2):
            await call.write(listed(request(event_id="same"), request(event_id="bad", amount=0)))
        await call.done_writing()
        replies = [reply async for reply in call]
    assert [reply.results[0].response.replayed for reply in replies] == [False, True]
    errors = {reply.results[1].error.reason for reply in replies}
    assert errors == {reason_pb2.REASON_INVALID_FIELD}


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_list_on_a_stream_has_its_bounds(side: Side, count: int) -> None:
    """One that is empty or too long ends the stream; what came before stays acknowledged."""
    call = stream(side)
    async with asyncio.timeout(10):
        await call.write(listed(request(event_id="good")))
        assert (await call.read()).results[0].response.event_id == "good"
        await call.write(listed(*[request()] * count))
        found = await failure(call.read())
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.fields) == ["requests"]
