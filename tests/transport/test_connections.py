"""Where a server listens, how it stops, and what connections may do, on each transport."""

import asyncio
import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tallygate.api.socket_lock import AddressInUse
from tallygate.api.transport import ServerOptions, TransportName, TransportUnable
from tallygate.api.transport_choice import chosen
from tallygate.gen.v1 import quota_pb2
from tests.faults import http2
from tests.servers import eventually
from tests.sidecar import channel, failure
from tests.transport.test_calls import ask
from tests.transport.test_streams import read, watch
from tests.transport.world import CONSUME, World, world

Code = grpc.StatusCode
NATIVE, GRPCIO = TransportName.NATIVE, TransportName.GRPCIO


async def test_several_addresses_serve_the_same(transport: TransportName, tmp_path: Path) -> None:
    """A path, open to its owner and group alone, and a port; both at once."""
    path = tmp_path / "sock"
    async with world(transport, f"unix:{path}", "127.0.0.1:0", "[::1]:0") as it:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert len(it.server.addresses) == 3
        for address in it.server.addresses:
            async with channel(address) as opened:
                await ask(opened, "CheckAndConsume", "acme")
                assert len([each async for each in watch(opened, "acme")]) == 3
    assert not path.exists()
    assert it.told.codes == {("CheckAndConsume", "OK"): 3, ("WatchQuota", "OK"): 3}


async def test_an_address_that_is_taken_is_named(transport: TransportName, tmp_path: Path) -> None:
    """A port or a path; what was bound before it is given back."""
    path = f"unix:{tmp_path / 'sock'}"
    async with world(transport, path, "127.0.0.1:0") as it:
        for taken in it.server.addresses:
            free = f"unix:{tmp_path / 'other'}"
            with pytest.raises(AddressInUse, match=taken.rpartition("/")[2]):
                async with world(transport, free, taken):
                    pass
            assert not (tmp_path / "other").exists()
            assert not (tmp_path / "other.lock").exists()


async def test_ports_are_shared_only_when_asked(transport: TransportName) -> None:
    """Two processes of one service may; any others are refused."""
    async with world(transport, reuse_port=True) as it:
        async with world(transport, it.address, reuse_port=True) as other:
            assert other.address == it.address
        with pytest.raises(AddressInUse):
            async with world(transport, it.address):
                pass


async def test_a_drain_finishes_what_is_inside(it: World) -> None:
    """Calls inside end well, new ones are told to come back, streams end with the same word."""
    async with channel(it.address) as opened:
        inside = [ask(opened, method, "hold") for method in ("CheckAndConsume", "GetQuota")]
        stream = watch(opened, "hold")
        for _ in range(3):
            await read(stream)
        await eventually(lambda: it.told.inside == 3, what="all inside")
        stopping = asyncio.ensure_future(it.server.stop(10.0))
        ended = await failure(read(stream))
        assert (ended.code, ended.comes_back) == (Code.UNAVAILABLE, True)
        late = await failure(ask(opened, "CheckAndConsume", "acme"))
        assert (late.code, late.comes_back) == (Code.UNAVAILABLE, True)
        it.batches.let()
        it.quota.let.set()
        await asyncio.gather(*inside)
        await stopping
    assert it.told.codes == {
        ("CheckAndConsume", "OK"): 1,
        ("GetQuota", "OK"): 1,
        ("WatchQuota", "UNAVAILABLE"): 1,
    }


async def test_a_drain_ends_what_does_not_end(it: World) -> None:
    """After the grace callers are told, and nothing is left inside."""
    async with channel(it.address) as opened:
        calls = [ask(opened, method, "hold") for method in ("CheckAndConsume", "GetQuota")]
        await eventually(lambda: it.told.inside == 2, what="both inside")
        await it.server.stop(0.2)
        for call in calls:
            assert await call.code() in (Code.UNAVAILABLE, Code.CANCELLED)
    await eventually(lambda: it.told.inside == 0, what="their end")


async def test_streams_beyond_a_connections_bound_wait_in_the_client(
    transport: TransportName,
) -> None:
    """And another connection is served."""
    async with (
        world(transport, streams_max=5) as it,
        channel(it.address) as one,
        channel(it.address) as two,
    ):
        await ask(one, "CheckAndConsume", "acme")
        many = [ask(one, "CheckAndConsume", "hold") for _ in range(50)]
        await eventually(lambda: it.told.inside == 5, what="a full connection")
        await ask(two, "CheckAndConsume", "acme")
        assert it.told.inside == 5
        for _ in range(10):
            await eventually(lambda: len(it.batches.held) == 5, what="five inside")
            it.batches.let()
        assert all(reply.allowed for reply in await asyncio.gather(*many))


async def test_calls_reset_at_once_leave_nothing_behind(it: World) -> None:
    """A thousand calls begun and given up, with and without their message."""
    async with http2.rude(it.address) as raw, channel(it.address) as opened:
        message = quota_pb2.CheckAndConsumeRequest(tenant_id="hold").SerializeToString()
        for turn in range(1_000):
            stream = raw.ask(f"/{CONSUME}")
            if turn % 2:
                raw.message(stream, message)
            raw.send(http2.RST_STREAM, 0, stream, http2.CANCEL.to_bytes(4, "big"))
        await raw.read_by_server()
        await ask(opened, "CheckAndConsume", "acme")
        await eventually(lambda: it.told.inside == 0, what="nothing inside")
    assert (it.server._gate.inside, it.server._gate.bytes) == (0, 0)


async def test_a_connection_cut_within_a_message_leaves_nothing(it: World) -> None:
    """Half a message, then a reset of the whole connection."""
    for _ in range(20):
        async with http2.rude(it.address) as raw:
            stream = raw.ask(f"/{CONSUME}")
            raw.send(http2.DATA, 0, stream, b"\0\0\0\x10\0half")
            await raw.read_by_server()
    async with channel(it.address) as opened:
        await ask(opened, "CheckAndConsume", "acme")
    await eventually(lambda: it.told.inside == 0, what="nothing inside")
    assert it.batches.sizes == [1]


async def test_messages_that_never_come_are_not_waited_for(transport: TransportName) -> None:
    """Calls without a deadline and without a message end by the default one, with its status."""
    async with world(transport, default_deadline_s=0.3) as it, http2.rude(it.address) as raw:
        streams = [raw.ask(f"/{CONSUME}") for _ in range(10)]
        assert await raw.ended(streams[0])
        ends = {("CheckAndConsume", "DEADLINE_EXCEEDED"): 10}
        await eventually(lambda: it.told.codes == ends, what="all their ends")


@pytest.mark.parametrize("hello", [True, False])
async def test_connections_that_do_nothing_are_closed(
    transport: TransportName, hello: bool
) -> None:
    """Half-open ones after the time of a handshake, others when they have been idle."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(
            world(transport, handshake_s=0.5, connection_idle_s=1.0)
        )
        idle = [
            await stack.enter_async_context(http2.rude(it.address, hello=hello)) for _ in range(20)
        ]
        opened = await stack.enter_async_context(channel(it.address))
        await ask(opened, "CheckAndConsume", "acme")
        await asyncio.gather(*(each.closed() for each in idle))
        await ask(opened, "CheckAndConsume", "acme")


async def test_bytes_that_are_not_http2_close_their_connection(it: World) -> None:
    """And cost nobody else anything."""
    host, _, port = it.address.rpartition(":")
    with socket.create_connection((host, int(port)), 5.0) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        reader = asyncio.to_thread(_read_all, plain)
        async with channel(it.address) as opened:
            await ask(opened, "CheckAndConsume", "acme")
        await reader


def _read_all(plain: socket.socket) -> None:
    try:
        while plain.recv(4096):
            pass
    except ConnectionResetError:
        pass


def test_auto_takes_what_is_able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native where it bounds everything; what it lacks is refused by name or done by grpcio."""
    asked: dict[str, Any] = {"addresses": ["127.0.0.1:0"], "message_bytes_max": 1, "edge": None}
    plain = ServerOptions(**asked, transport=TransportName.AUTO)
    aging = ServerOptions(**asked, transport=TransportName.AUTO, connection_age_s=1.0)
    named = ServerOptions(**asked, transport=NATIVE, connection_age_s=1.0)
    assert chosen(ServerOptions(**asked))[0] is GRPCIO
    monkeypatch.setattr("tallygate.api.native.BOUNDED", True)
    assert [chosen(each)[0] for each in (plain, aging, named)] == [NATIVE] * 3
    monkeypatch.setattr("tallygate.api.native.BOUNDED", False)
    assert [chosen(each)[0] for each in (plain, aging)] == [GRPCIO] * 2
    with pytest.raises(TransportUnable, match="connection_age_ms"):
        chosen(named)
    monkeypatch.setattr("tallygate.api.transport_choice.NativeTransport", None)
    assert chosen(plain)[0] is GRPCIO
    with pytest.raises(TransportUnable, match="not installed"):
        chosen(ServerOptions(**asked, transport=NATIVE))
