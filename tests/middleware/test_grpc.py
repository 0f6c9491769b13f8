"""The interceptors in front of real gRPC servers, in threads and under asyncio."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from tallygate_client import AsyncClient
from tallygate_client.grpc_asyncio import AsyncMeteringInterceptor
from tallygate_client.grpc_threads import MeteringInterceptor
from tallygate_client.interceptors import RpcRules
from tallygate_client.metering import Measured

from tests.middleware.world import REQUESTS_MAX, World, read_field

SERVICE = "tests.Echo"
ASKED_ON = threading.Event()
RULES = RpcRules(
    tenant="x-tenant",
    cost=lambda call: {"requests": 1} if "Stream" not in call.method else None,
    messages=Measured("messages", 100),
    count="both",
    exempt=lambda call: call.method.endswith("/Free"),
)


HANDLERS: dict[str, Callable[..., Any]] = {
    "Say": grpc.unary_unary_rpc_method_handler,
    "Fail": grpc.unary_unary_rpc_method_handler,
    "Free": grpc.unary_unary_rpc_method_handler,
    "Stream": grpc.unary_stream_rpc_method_handler,
    "Write": grpc.unary_stream_rpc_method_handler,
    "StreamBoth": grpc.stream_stream_rpc_method_handler,
}


class Caller:
    """Makes calls of bytes over a channel, by the name of the method."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary(self, name: str) -> Any:
        """Return a call with one reply."""
        return self._channel.unary_unary(f"/{SERVICE}/{name}")

    def stream(self, name: str) -> Any:
        """Return a call with many replies."""
        return self._channel.unary_stream(f"/{SERVICE}/{name}")

    def both(self, name: str) -> Any:
        """Return a call with many requests and many replies."""
        return self._channel.stream_stream(f"/{SERVICE}/{name}")


def generic(behaviors: dict[str, Callable[..., Any]]) -> Any:
    """Return a service of these methods."""
    handlers = {name: HANDLERS[name](behavior) for name, behavior in behaviors.items()}
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def say(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer."""
    return request


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer with a status, or by raising."""
    if request == b"raise":
        raise RuntimeError
    context.set_code(grpc.StatusCode.NOT_FOUND)
    return b""


def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer three times, and wait for the end where asked to."""
    for number in range(3):
        yield b"%d" % number
    if request == b"wait":
        # Only once it is asked for a fourth is it sure that the third was sent.
        ASKED_ON.set()
        ended = threading.Event()
        if context.add_callback(ended.set):
            ended.wait()


def stream_both(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each."""
    yield from requests


@pytest.fixture
def calls(metered_world: World) -> Iterator[Caller]:
    """What calls a server with threads."""
    interceptor = MeteringInterceptor(client=metered_world.client, rules=RULES)
    server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[interceptor])
    behaviors: dict[str, Callable[..., Any]] = {
        "Say": say,
        "Fail": fail,
        "Free": say,
        "Stream": stream,
        "StreamBoth": stream_both,
    }
    server.add_generic_rpc_handlers((generic(behaviors),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield Caller(opened)
    server.stop(None).wait()


def told(error: Any) -> tuple[error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo]:
    """Return what a refusal's details say."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    unpacked = [detail.Unpack(each) for detail in status.details for each in (failure, retry)]
    assert sum(unpacked) == 2
    standing = read_field(trailers["tallygate-ratelimit"])["requests-monthly"]
    assert (standing["r"], standing["t"]) == ("0", str(retry.retry_delay.seconds))
    return failure, retry


def test_calls_are_served_up_to_the_limit(calls: Caller, metered_world: World, tenant: str) -> None:
    """The call beyond the limit is RESOURCE_EXHAUSTED, and says which limit and when to return."""
    call = calls.unary("Say")
    metadata = (("x-tenant", tenant),)
    for number in range(1, REQUESTS_MAX + 1):
        reply, served = call.with_call(b"hello", metadata=metadata, timeout=10)
        assert reply == b"hello"
        left = read_field(dict(served.trailing_metadata())["tallygate-ratelimit"])
        assert left["requests-monthly"]["r"] == str(REQUESTS_MAX - number)
    with pytest.raises(grpc.RpcError) as refused:
        call(b"hello", metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    failure, retry = told(refused.value)
    assert failure.violations[0].subject == "limit:requests-monthly"
    assert retry.retry_delay.seconds > 0
    assert tenant not in str(refused.value.details())
    assert calls.unary("Free")(b"free", timeout=10) == b"free"
    metered_world.settles(tenant, REQUESTS_MAX)


@pytest.mark.parametrize("how", [b"code", b"raise"])
def test_failures_are_not_charged(
    calls: Caller, metered_world: World, tenant: str, how: bytes
) -> None:
    """A handler that sets a status or raises has served nothing."""
    with pytest.raises(grpc.RpcError):
        calls.unary("Fail")(how, metadata=(("x-tenant", tenant),), timeout=10)
    metered_world.settles(tenant, 0)


def test_no_tenant_is_no_pass(calls: Caller) -> None:
    """Who names no tenant is not served."""
    with pytest.raises(grpc.RpcError) as refused:
        calls.unary("Say")(b"hello", timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_streams_are_charged_by_their_messages(
    calls: Caller, metered_world: World, tenant: str
) -> None:
    """Messages of both directions count; what the client cancels, as far as it was sent."""
    metadata = (("x-tenant", tenant),)
    both = calls.both("StreamBoth")
    assert len(list(both(iter([b"a", b"b"]), metadata=metadata, timeout=10))) == 2
    metered_world.settles(tenant, 4, "messages")
    replies = calls.stream("Stream")(b"", metadata=metadata, timeout=10)
    assert len(list(replies)) == 3
    metered_world.settles(tenant, 8, "messages")


def test_a_cancelled_stream_is_settled(calls: Caller, metered_world: World, tenant: str) -> None:
    """A client that cancels pays for what was sent till then, and nothing stays held."""
    metadata = (("x-tenant", tenant),)
    replies = calls.stream("Stream")(b"wait", metadata=metadata, timeout=10)
    assert [next(replies) for _ in range(3)] == [b"0", b"1", b"2"]
    assert ASKED_ON.wait(10)
    replies.cancel()
    metered_world.settles(tenant, 1 + 3, "messages")


async def test_asyncio_servers_are_metered_alike(metered_world: World, tenant: str) -> None:
    """Under asyncio: the limit, failures, streams written either way, and a cancelled one."""
    begun = asyncio.Event()

    async def say_async(request: bytes, context: Any) -> bytes:
        assert context.tallygate.tenant == tenant
        return request

    async def fail_async(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no")
        raise AssertionError

    async def stream_async(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
        if request == b"wait":
            begun.set()
            await asyncio.Event().wait()

    async def write_async(request: bytes, context: Any) -> None:
        for _ in range(5):
            await context.write(b"written")

    behaviors = {
        "Say": say_async,
        "Fail": fail_async,
        "Stream": stream_async,
        "Write": write_async,
    }
    settles = metered_world.settles_apart(tenant)
    metadata = (("x-tenant", tenant),)
    async with AsyncClient(metered_world.address, timeout=10) as client:
        interceptor = AsyncMeteringInterceptor(client=client, rules=RULES)
        server = grpc.aio.server(interceptors=[interceptor])
        server.add_generic_rpc_handlers((generic(behaviors),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = Caller(channel)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await calls.unary("Fail")(b"", metadata=metadata)
            assert failed.value.code() is grpc.StatusCode.NOT_FOUND
            await settles(0)
            streaming = calls.stream("Stream")
            assert [each async for each in streaming(b"", metadata=metadata)] == [b"0", b"1", b"2"]
            await settles(4, "messages")
            writing = calls.stream("Write")(b"", metadata=metadata)
            assert len([each async for each in writing]) == 5
            await settles(10, "messages")
            cancelled = streaming(b"wait", metadata=metadata)
            assert [await cancelled.read() for _ in range(3)] == [b"0", b"1", b"2"]
            await begun.wait()
            cancelled.cancel()
            await settles(14, "messages")
            say_it = calls.unary("Say")
            while metered_world.used(tenant) < REQUESTS_MAX:
                assert await say_it(b"hello", metadata=metadata) == b"hello"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await say_it(b"hello", metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            told(refused.value)
        await server.stop(None)
