"""What the front of the native transport does, as published and with our patch."""

import asyncio
from typing import Any

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from tallygate.api.native import BOUNDED, unbounded
from tallygate.api.transport import TransportName
from tests.servers import eventually
from tests.sidecar import channel
from tests.transport.test_calls import ask
from tests.transport.world import CONSUME, world

MIB = 1024 * 1024


def test_a_pushback_is_sent_or_said_not_to_be() -> None:
    """The published front refuses the name as the transport's own; the patched one lets it pass."""
    front = NativeGrpcFront("127.0.0.1:0", [(f"/{CONSUME}", False)])
    try:
        front.fail(1, 14, "come back", [("grpc-retry-pushback-ms", "5")])
        passes = True
    except ValueError:
        passes = False
    finally:
        front.close()
    assert passes is BOUNDED
    assert (unbounded() is None) is BOUNDED


async def test_a_message_of_any_size_comes_through_unless_it_is_bounded() -> None:
    """64 MiB, sixteen times what gRPC allows by default, are handed over by a bare front."""
    front = NativeGrpcFront("127.0.0.1:0", [(f"/{CONSUME}", False)])
    front.start()
    try:
        async with channel(f"127.0.0.1:{front.bound_port}") as opened:
            method: Any = opened.unary_unary(f"/{CONSUME}")
            call = asyncio.ensure_future(method(b"x" * 64 * MIB))
            [(kind, number, _, data, _)] = await asyncio.to_thread(_first, front)
            assert (kind, len(data or b"")) == (EVENT_CALL, 64 * MIB)
            front.respond(number, b"")
            await call
    finally:
        await asyncio.to_thread(front.close)


def _first(front: NativeGrpcFront) -> list[tuple[int, int, int, bytes | None, object]]:
    found = front.recv_batch(1, 30_000)
    assert found is not None
    return [*found]


async def test_the_native_transport_serves_on_either_front() -> None:
    """Whichever is installed: calls, and their end."""
    async with world(TransportName.NATIVE) as it, channel(it.address) as opened:
        await ask(opened, "CheckAndConsume", "acme")
        await ask(opened, "GetQuota", "acme")
        call = ask(opened, "CheckAndConsume", "hold")
        await eventually(lambda: it.told.inside == 1, what="the call inside")
        call.cancel()
        await eventually(lambda: it.told.inside == 0, what="its end")
