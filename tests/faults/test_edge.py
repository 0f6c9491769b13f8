"""Callers that are too many, too slow or rude: others are served, and memory stays bounded."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from tests.faults import http2
from tests.faults.edge_world import METHOD, door
from tests.servers import eventually
from tests.sidecar import channel, charge, failure

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def files() -> int:
    """Return how many files this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def test_one_call_too_many_is_refused_unread() -> None:
    """With no room for a call, its message is not even waited for; those inside are answered."""
    async with (
        door(calls_max=4) as it,
        channel(it.address) as opened,
        http2.rude(it.address) as raw,
    ):
        calls = [asyncio.ensure_future(it.stub(opened).CheckAndConsume(charge())) for _ in range(4)]
        await eventually(lambda: len(it.held.asked) == 4, what="a full house")
        found = await failure(it.stub(opened).CheckAndConsume(charge()))
        assert (found.code, found.reason, found.comes_back) == (UNAVAILABLE, "OVERLOADED", True)
        # Only its headers are sent, and it is answered.
        assert await raw.ended(raw.ask(METHOD))
        assert (it.told.shed, it.told.inside) == (2, 4)
        it.held.let.set()
        assert all(reply.allowed for reply in await asyncio.gather(*calls))
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        assert it.told.codes == {"OK": 5}


async def test_too_many_bytes_are_refused() -> None:
    """Large requests count by their bytes: what is beyond the room is refused, alone or not."""
    async with door(calls_max_bytes=1_000) as it, channel(it.address) as opened:
        stub = it.stub(opened)
        large = asyncio.ensure_future(stub.CheckAndConsume(charge("x" * 600)))
        await eventually(lambda: it.held.asked, what="the large one inside")
        found = await failure(stub.CheckAndConsume(charge("y" * 600)))
        assert (found.code, found.reason) == (UNAVAILABLE, "OVERLOADED")
        small = asyncio.ensure_future(stub.CheckAndConsume(charge("small")))
        await eventually(lambda: len(it.held.asked) == 2, what="the small one inside")
        it.held.let.set()
        assert (await large).allowed
        assert (await small).allowed
        # Alone, one may be larger than all the room, or it could never pass.
        assert (await stub.CheckAndConsume(charge("z" * 2_000))).allowed
        assert it.server._gate.bytes == 0


async def test_what_is_out_of_time_is_not_decoded() -> None:
    """A call whose deadline has passed on its way is ended before anyone looks at it."""
    async with door() as it, http2.rude(it.address) as raw:
        for _ in range(50):
            stream = raw.ask(METHOD, grpc_timeout="1n")
            raw.message(stream, b"\xff not a message")
            assert await raw.ended(stream)
        await eventually(lambda: it.told.inside == 0, what="all calls ended")
        assert it.held.asked == []
        # Decoded, it would have been malformed.
        assert "INVALID_ARGUMENT" not in it.told.codes


async def test_calls_that_never_say_what_they_want_end() -> None:
    """A slow loris begins calls and sends nothing: others are served, and its calls end."""
    async with (
        door(default_deadline_s=3.0) as it,
        channel(it.address) as opened,
        http2.rude(it.address) as raw,
    ):
        it.held.let.set()
        streams = [raw.ask(METHOD) for _ in range(100)]
        await raw.read_by_server()
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        ended = len(streams) + 1
        await eventually(lambda: it.told.codes.total() == ended, what="their end")
        assert it.told.inside == 0
        assert it.told.codes == {"OK": 1, "DEADLINE_EXCEEDED": len(streams)}


async def test_connections_that_say_nothing_are_closed() -> None:
    """Whoever connects and is silent costs a connection for the time of a handshake."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(door(handshake_s=0.5))
        it.held.let.set()
        before = files()
        silent = [
            await stack.enter_async_context(http2.rude(it.address, hello=False)) for _ in range(200)
        ]
        opened = await stack.enter_async_context(channel(it.address))
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        await asyncio.gather(*(each.closed() for each in silent))
        # Our own ends are still open.
        await eventually(lambda: files() < before + 220, what="the server's ends closed")


@pytest.mark.slow
async def test_idle_connections_are_closed() -> None:
    """Connections that once said hello and ask nothing are closed, and cost no call a thing."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(door(connection_idle_s=1.0))
        it.held.let.set()
        idle = [await stack.enter_async_context(http2.rude(it.address)) for _ in range(100)]
        # Whoever the server has not answered yet has no connection that could be idle.
        assert all(await asyncio.gather(*(each.frame() for each in idle)))
        opened = await stack.enter_async_context(channel(it.address))
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        found = await asyncio.gather(*(each.closed() for each in idle))
        assert all(http2.GOAWAY in [frame.kind for frame in frames] for frames in found)
        # A client whose connection went idle opens another, and hears nothing of it.
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed


async def test_a_flood_of_pings_is_cut_off() -> None:
    """Who pings without end loses the connection; others keep theirs."""
    async with door() as it, channel(it.address) as opened, http2.rude(it.address) as raw:
        it.held.let.set()
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        for number in range(1_000):
            raw.send(http2.PING, 0, 0, number.to_bytes(8, "big"))
        await raw.closed()
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        assert len(it.held.peers) == 1


async def test_calls_reset_at_once_leave_nothing_behind() -> None:
    """Rapid reset: thousands of calls begun and given up at once, and others are served."""
    async with door() as it, channel(it.address) as opened, http2.rude(it.address) as raw:
        it.held.let.set()
        for turn in range(3_000):
            stream = raw.ask(METHOD)
            raw.send(http2.RST_STREAM, 0, stream, http2.CANCEL.to_bytes(4, "big"))
            if turn % 500 == 0:
                assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        await raw.read_by_server()
        await eventually(lambda: it.told.inside == 0, what="nothing inside")
        assert it.server._gate.bytes == 0
        assert (await it.stub(opened).CheckAndConsume(charge())).allowed
        assert it.told.codes["OK"] == 7


@pytest.mark.slow
async def test_connections_grow_old_without_an_error() -> None:
    """Clients that retry move to new connections again and again, and not one call fails.

    A call that begins while its connection is told to go is not taken; who does not begin it again
    on the next one, as gRPC's clients do unless they are told not to, meets UNAVAILABLE.
    """
    async with door(connection_age_s=1.0) as it, channel(it.address, retries=True) as opened:
        it.held.let.set()
        stub = it.stub(opened)

        async def call_until_moved() -> int:
            answered = 0
            while len(it.held.peers) < 5:
                assert (await stub.CheckAndConsume(charge())).allowed
                answered += 1
            return answered

        counts = await asyncio.gather(*(call_until_moved() for _ in range(8)))
        assert min(counts) > 0
        assert it.told.codes == {"OK": sum(counts)}


async def test_a_connection_that_is_old_ends_its_calls_first() -> None:
    """Calls inside are answered on it; one that begins too late is not taken, nor counted."""
    async with door(connection_age_s=0.2) as it, http2.rude(it.address) as raw:
        inside = raw.ask(METHOD)
        raw.message(inside, charge("inside").SerializeToString())
        assert await raw.told_to_go() == inside
        late = raw.ask(METHOD)
        raw.message(late, charge("late").SerializeToString())
        raw.send(http2.WINDOW_UPDATE, 0, late, (1).to_bytes(4, "big"))
        await raw.read_by_server()
        it.held.let.set()
        assert await raw.ended(inside)
        assert late not in {frame.stream for frame in await raw.closed()}
        assert it.held.asked == ["inside"]
        assert it.told.codes == {"OK": 1}


async def test_more_calls_than_a_connection_may_hold_wait_in_the_client() -> None:
    """One connection's excess is its own: nothing fails, and another connection is served."""
    async with (
        door(streams_max=10) as it,
        channel(it.address) as one,
        channel(it.address) as two,
    ):
        # A client learns the bound with its first answer.
        it.held.let.set()
        await it.stub(one).CheckAndConsume(charge())
        it.held.let.clear()
        many = [asyncio.ensure_future(it.stub(one).CheckAndConsume(charge())) for _ in range(200)]
        await eventually(lambda: it.told.inside == 10, what="a full connection")
        other = asyncio.ensure_future(it.stub(two).CheckAndConsume(charge("other")))
        await eventually(lambda: "other" in it.held.asked, what="the other connection")
        assert it.told.inside == 11
        it.held.let.set()
        assert all(reply.allowed for reply in await asyncio.gather(*many, other))
        assert it.told.codes == {"OK": 202}
