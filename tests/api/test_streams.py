"""A method that streams, over a real channel: how it begins, goes on and ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import grpc
import pytest

from tallygate.domain.decision import LimitState
from tallygate.domain.errors import BackendUnavailable
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.servers import eventually
from tests.sidecar import QUOTA, failure, refused
from tests.watches import GRACE_S, STALE_MS, Rig, Side, serving, standing

Code = grpc.StatusCode
SNAPSHOT, CHANGED = quota_pb2.WATCH_CAUSE_SNAPSHOT, quota_pb2.WATCH_CAUSE_CHANGED
CROSSED = quota_pb2.WATCH_CAUSE_CROSSED
# Far below the grace: a drain that waited for it would be seen.
PROMPT_S = 2.0


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    """A server with room for a few watches."""
    async with serving(Rig(watches_max=3)) as found:
        yield found


async def read(call: object) -> quota_pb2.WatchQuotaResponse:
    """Return the next message, which must come soon."""
    async with asyncio.timeout(5):
        return cast(quota_pb2.WatchQuotaResponse, await call.read())  # type: ignore[attr-defined]


async def test_messages_come_one_by_one(side: Side) -> None:
    """A snapshot first, then what changes, with its cause, each as it happens."""
    call = side.watch()
    first = await read(call)
    assert (first.cause, first.plan, first.catalog_version) == (SNAPSHOT, "free", 1)
    assert [(each.limit_id, each.used, each.limit) for each in first.limits] == [
        ("monthly", 0, 100)
    ]
    await side.rig.show(standing(7))
    second = await read(call)
    assert (second.cause, second.limits[0].used) == (CHANGED, 7)
    await side.rig.show(standing(80, LimitState.WARNING))
    assert (await read(call)).cause == CROSSED
    call.cancel()


async def test_a_stream_outlives_the_default_deadline(side: Side) -> None:
    """A call without a deadline of its own gets none when it streams."""
    call = side.watch()
    await read(call)
    # The default is 0.2 s; a call beside it that waits for twice that has outlasted it.
    late = side.watch(timeout_s=0.4)
    assert (await refused(_drained(late))).code() is Code.DEADLINE_EXCEEDED
    await side.rig.show(standing(1))
    assert (await read(call)).limits[0].used == 1
    call.cancel()


async def test_a_caller_that_goes_takes_its_watch_along(side: Side) -> None:
    """Cancelled or cut off, nothing of the watch is left, and nothing is read for it."""
    call = side.watch()
    await read(call)
    assert side.rig.told.watches == 1
    call.cancel()
    await eventually(lambda: side.rig.told.watches == 0, what="the watch's end")
    cut = side.watch()
    await read(cut)
    await side.channel.close()
    await eventually(lambda: side.rig.told.watches == 0, what="the watch's end")
    await eventually(lambda: side.calls.open == 0, what="the call's end")
    assert side.calls.codes == ["CANCELLED", "CANCELLED"]


async def test_a_drain_ends_streams_at_once(side: Side) -> None:
    """A server that stops tells its watchers to come back elsewhere, and waits for none of them."""
    call = side.watch()
    await read(call)
    loop = asyncio.get_running_loop()
    began = loop.time()
    stopping = asyncio.create_task(side.server.stop(GRACE_S))
    found = await failure(_drained(call))
    await stopping
    assert loop.time() - began < PROMPT_S
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "OVERLOADED")
    assert found.comes_back
    assert side.calls.codes == ["UNAVAILABLE"]


async def test_what_ends_a_watch_is_told_with_its_reason(side: Side) -> None:
    """An error after some messages reaches the caller as any other does."""
    call = side.watch()
    await read(call)
    side.rig.clock.seconds += STALE_MS / 1000
    await side.rig.show(BackendUnavailable())
    found = await failure(_drained(call))
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "BACKEND_UNAVAILABLE")
    assert found.comes_back


async def test_too_many_watches_are_refused(side: Side) -> None:
    """The one too many is told to come back later; the others go on."""
    calls = [side.watch() for _ in range(3)]
    for call in calls:
        await read(call)
    found = await failure(_drained(side.watch()))
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "OVERLOADED")
    assert found.pushback_ms == "1000"
    await side.rig.show(standing(2))
    assert [(await read(call)).limits[0].used for call in calls] == [2, 2, 2]
    for call in calls:
        call.cancel()


@pytest.mark.parametrize(
    ("message", "path"),
    [
        pytest.param(quota_pb2.WatchQuotaRequest(), "tenant_id", id="nobody"),
        pytest.param(
            quota_pb2.WatchQuotaRequest(tenant_id="a", meters=["A b"]), "meters[0]", id="a meter"
        ),
        pytest.param(
            quota_pb2.WatchQuotaRequest(tenant_id="a", dimensions={"k": "\0"}),
            "dimensions['k']",
            id="a dimension",
        ),
    ],
)
async def test_a_bad_question_is_refused_by_field(
    side: Side, message: quota_pb2.WatchQuotaRequest, path: str
) -> None:
    """Watching is checked as reading is."""
    call = quota_pb2_grpc.QuotaServiceStub(side.channel).WatchQuota(message)
    found = await failure(_drained(call))
    assert (found.code, found.reason, list(found.fields)) == (
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        [path],
    )


async def test_bytes_that_do_not_decode_are_malformed(side: Side) -> None:
    """Garbage gets a mapped status from a method that streams too."""
    garbled: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = side.channel.unary_stream(
        f"/{QUOTA}/WatchQuota"
    )
    found = await failure(_drained(garbled(b"\xff\xff\xff")))
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.slow
async def test_a_caller_that_does_not_read_costs_one_state(side: Side) -> None:
    """It finds what the transport had taken, then the newest; the server kept nothing between."""
    call = side.watch()
    await read(call)
    changes = 20_000
    for used in range(1, changes + 1):
        await side.rig.show(standing(used))
        await asyncio.sleep(0)
    got = 0
    while (await read(call)).limits[0].used < changes:
        got += 1
    assert got < changes // 2
    call.cancel()


async def _drained(call: object) -> None:
    """Read to the end, which is an error: reading on after it raises."""
    while True:
        await read(call)
