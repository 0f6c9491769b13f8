"""Calls on each transport: what they are answered with, and what is counted of them."""

import asyncio
import gzip
from typing import Any

import grpc
import pytest

from tallygate.api.transport import TransportName
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.faults import http2
from tests.servers import eventually
from tests.sidecar import QUOTA, channel, failure, refused
from tests.transport.world import CONSUME, World, world

Code = grpc.StatusCode
Consume, Get = quota_pb2.CheckAndConsumeRequest, quota_pb2.GetQuotaRequest
MIB = 1024 * 1024
# Clients round what is left up to a whole millisecond, and more of longer times.
ROUNDED_UP_S = 0.01


def ask(opened: grpc.aio.Channel, method: str, tenant: str, **options: Any) -> Any:
    """Begin a call of a method that takes batches, or of one that does not."""
    stub = quota_pb2_grpc.QuotaServiceStub(opened)
    if method == "CheckAndConsume":
        return stub.CheckAndConsume(Consume(tenant_id=tenant), **options)
    return stub.GetQuota(Get(tenant_id=tenant), **options)


both_kinds = pytest.mark.parametrize("method", ["CheckAndConsume", "GetQuota"])


@both_kinds
async def test_a_reply_comes_back_and_is_counted(it: World, method: str) -> None:
    """Its metadata say nothing but what HTTP/2 needs."""
    async with channel(it.address) as opened:
        call = ask(opened, method, "acme", metadata=(("x-who", "me"), ("x-raw-bin", b"\0\xff")))
        await call
        assert await call.code() is Code.OK
        assert [key for key, _ in await call.trailing_metadata()] == []
    assert it.told.codes == {(method, "OK"): 1}
    assert (it.told.inside, it.server._gate.bytes) == (0, 0)


@both_kinds
@pytest.mark.parametrize(
    ("tenant", "code", "reason"),
    [
        ("invalid", Code.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("unknown", Code.NOT_FOUND, "UNKNOWN_TENANT"),
        ("away", Code.UNAVAILABLE, "BACKEND_UNAVAILABLE"),
        ("bug", Code.INTERNAL, "INTERNAL"),
    ],
)
async def test_an_error_is_a_status_with_details(
    it: World, method: str, tenant: str, code: grpc.StatusCode, reason: str
) -> None:
    """By the one table; the pushback goes along where a caller should come back."""
    async with channel(it.address) as opened:
        found = await failure(ask(opened, method, tenant))
    assert (found.code, found.reason) == (code, reason)
    assert found.fields == ["tenant_id"] * (tenant in ("invalid", "unknown"))
    assert found.pushback_ms == ("1234" if tenant == "away" else None)
    assert "hunter2" not in repr(found)
    assert it.told.codes == {(method, code.name): 1}


async def test_a_batch_method_that_raises_answers_all_the_same(it: World) -> None:
    """A defect costs its callers an INTERNAL, and no one the server."""
    async with channel(it.address) as opened:
        found = await failure(ask(opened, "CheckAndConsume", "raise"))
        assert (found.code, found.reason) == (Code.INTERNAL, "INTERNAL")
        await ask(opened, "CheckAndConsume", "acme")


@both_kinds
async def test_bytes_without_sense_are_malformed(it: World, method: str) -> None:
    """So is a call that ends without a message."""
    async with channel(it.address) as opened, http2.rude(it.address) as raw:
        multi: Any = opened.unary_unary(f"/{QUOTA}/{method}")
        found = await failure(multi(b"\xff\xff\xff"))
        assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
        stream = raw.ask(f"/{QUOTA}/{method}")
        raw.send(http2.DATA, http2.END_STREAM, stream)
        assert await raw.ended(stream)
    assert it.told.codes == {(method, "INVALID_ARGUMENT"): 2}


@pytest.mark.parametrize("path", [f"/{QUOTA}/Nope", "/tallygate.v9.Else/Call", "/x/y"])
async def test_a_method_that_does_not_exist_is_said_so(it: World, path: str) -> None:
    """With a reason, like any other error."""
    async with channel(it.address) as opened:
        multi: Any = opened.unary_unary(path)
        found = await failure(multi(b""))
    assert (found.code, found.reason) == (Code.UNIMPLEMENTED, "UNKNOWN_METHOD")


@both_kinds
@pytest.mark.parametrize("size", [4 * MIB + 1, 32 * MIB])
async def test_a_message_too_large_is_refused(it: World, method: str, size: int) -> None:
    """The connection and its other calls go on."""
    async with channel(it.address) as opened:
        held = asyncio.ensure_future(ask(opened, "CheckAndConsume", "hold"))
        multi: Any = opened.unary_unary(f"/{QUOTA}/{method}")
        assert (await refused(multi(b"\x0a" + b"x" * size))).code() is Code.RESOURCE_EXHAUSTED
        await eventually(lambda: it.batches.held, what="the other call inside")
        it.batches.let()
        assert (await held).allowed


async def test_a_message_that_unpacks_to_too_much_is_refused(it: World) -> None:
    """32 MiB of nothing are 32 KiB on the wire, and are not unpacked."""
    async with http2.rude(it.address) as raw:
        stream = raw.ask(f"/{CONSUME}", grpc_encoding="gzip")
        raw.message(stream, gzip.compress(b"\0" * (32 * MIB)), compressed=True)
        assert await raw.ended(stream)
    async with channel(it.address) as opened:
        await ask(opened, "CheckAndConsume", "acme")
    assert it.batches.sizes == [1]


async def test_a_compressed_message_is_read(it: World) -> None:
    """As grpcio's clients send them when they are told to."""
    async with channel(it.address) as opened:
        call = ask(opened, "CheckAndConsume", "acme" * 100, compression=grpc.Compression.Gzip)
        assert (await call).allowed


async def test_a_reply_too_large_is_refused(transport: TransportName) -> None:
    """It is not sent, and the caller is told."""
    async with world(transport, message_bytes_max=2048) as it, channel(it.address) as opened:
        stub = quota_pb2_grpc.QuotaServiceStub(opened)
        assert len((await stub.GetQuota(Get(meters=["x" * 1_000]))).plan) == 1_000
        it.batches.reply = b"x" * 3_000
        found = await refused(ask(opened, "CheckAndConsume", "acme"))
        assert found.code() is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [17_000, 40_000])
async def test_metadata_too_large_are_refused(it: World, size: int) -> None:
    """With the same status as a message too large; the next call is served."""
    async with channel(it.address) as opened:
        found = await refused(ask(opened, "GetQuota", "a", metadata=(("x-large", "x" * size),)))
        assert found.code() is Code.RESOURCE_EXHAUSTED
        await ask(opened, "GetQuota", "a", metadata=(("x-large", "x" * 8_000),))
    assert it.told.codes["GetQuota", "OK"] == 1


@both_kinds
async def test_a_callers_deadline_is_kept(it: World, method: str) -> None:
    """Both sides end by it, and the method hears how long its caller waits."""
    async with channel(it.address) as opened:
        found = await refused(ask(opened, method, "hold", timeout=0.2))
        assert found.code() is Code.DEADLINE_EXCEEDED
        await eventually(lambda: it.told.codes, what="the server's end of it")
        # Which of the two ends it first is a race that neither loses by much.
        [(ended, code)] = it.told.codes
        assert (ended, code in ("DEADLINE_EXCEEDED", "CANCELLED")) == (method, True)
        if method == "GetQuota":
            assert 0 < (it.quota.remaining[0] or 0) <= 0.2 + ROUNDED_UP_S
            await eventually(lambda: it.quota.cancelled == 1, what="the method's end")
        else:
            assert 0 < it.batches.ends[""] <= 0.2 + ROUNDED_UP_S
            [(number, answering)] = it.batches.held
            assert not answering.waits(number)


@both_kinds
async def test_a_call_without_a_deadline_gets_one(transport: TransportName, method: str) -> None:
    """It ends with a reason, and nothing of it is left inside."""
    async with world(transport, default_deadline_s=0.2) as it, channel(it.address) as opened:
        found = await failure(ask(opened, method, "hold"))
        assert (found.code, found.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
        assert it.told.codes == {(method, "DEADLINE_EXCEEDED"): 1}
        assert it.told.inside == 0
        # Too late: nobody hears it, and nothing breaks.
        it.batches.let()
        await ask(opened, method, "acme")


@both_kinds
async def test_a_caller_that_goes_frees_its_call(it: World, method: str) -> None:
    """Cancelled or cut off, it is counted out at once, and a task of it is cancelled."""
    async with channel(it.address) as opened:
        call = ask(opened, method, "hold")
        await eventually(lambda: it.told.inside == 1, what="the call inside")
        call.cancel()
        await eventually(lambda: it.told.inside == 0, what="its end")
        ask(opened, method, "hold")
        await eventually(lambda: it.told.inside == 1, what="another inside")
    await eventually(lambda: it.told.inside == 0, what="the end of a cut connection's")
    assert it.told.codes == {(method, "CANCELLED"): 2}
    if method == "CheckAndConsume":
        assert [answering.waits(number) for number, answering in it.batches.held] == [False] * 2
    else:
        assert it.quota.cancelled == 2


@both_kinds
async def test_many_calls_at_once_each_get_their_reply(it: World, method: str) -> None:
    """Over several connections, none lost and none answered twice."""
    async with channel(it.address) as one, channel(it.address) as two:
        calls = [ask(opened, method, "acme") for opened in (one, two) for _ in range(400)]
        await asyncio.gather(*calls)
    assert it.told.codes == {(method, "OK"): 800}
    assert (it.told.inside, it.server._gate.inside, it.server._gate.bytes) == (0, 0, 0)


@pytest.mark.parametrize(("name", "batches_max"), [("native", 40), ("grpcio", 100)])
async def test_calls_that_come_together_are_handed_over_together(
    name: str, batches_max: int
) -> None:
    """On the native transport a burst is few batches; on grpcio each call is one."""
    async with world(TransportName(name)) as it, http2.rude(it.address) as raw:
        message = Consume(tenant_id="hold").SerializeToString()
        for _ in range(100):
            raw.message(raw.ask(f"/{CONSUME}"), message)
        await eventually(lambda: sum(it.batches.sizes) == 100, what="all calls")
        assert len(it.batches.sizes) <= batches_max


async def test_one_call_too_many_is_refused_unread(transport: TransportName) -> None:
    """With no room, its message is not waited for; callers are told when to come back."""
    async with (
        world(transport, calls_max=4) as it,
        channel(it.address) as opened,
        http2.rude(it.address) as raw,
    ):
        calls = [ask(opened, "CheckAndConsume", "hold") for _ in range(4)]
        await eventually(lambda: len(it.batches.held) == 4, what="a full house")
        found = await failure(ask(opened, "CheckAndConsume", "acme"))
        assert (found.code, found.reason, found.comes_back) == (
            Code.UNAVAILABLE,
            "OVERLOADED",
            True,
        )
        assert await raw.ended(raw.ask(f"/{CONSUME}"))
        assert (it.told.shed, it.told.inside) == (2, 4)
        it.batches.let()
        assert all(reply.allowed for reply in await asyncio.gather(*calls))
