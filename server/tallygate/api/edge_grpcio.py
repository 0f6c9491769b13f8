"""The edge as grpcio's handlers have it: each method wrapped once, when it is registered.

Guarantees: where there is no room, or no time left, a message is neither read nor decoded.
Refuses to know: what methods do, and which statuses errors become.

An interceptor would cost every call. To grpcio all methods stream, as it would otherwise read a
request before anybody could refuse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from tallygate.api.edge import (
    OK,
    Behaviour,
    Context,
    Decode,
    Edge,
    Gate,
    Handler,
    Method,
    StreamBehaviour,
)
from tallygate.api.one_by_one import OneByOne
from tallygate.api.status import MalformedMessage, UnknownMethod, refusal
from tallygate.api.traced import CallSpans, code_name
from tallygate.domain.errors import Overloaded
from tallygate.ports.tracing import working_for


def handlers_of(methods: Mapping[str, Method], edge: Edge) -> list[grpc.GenericRpcHandler]:
    """Return what a grpcio server needs to serve these and to refuse all others, in this order."""
    own = {path: _wrapped(method, edge) for path, method in methods.items() if method.edged}
    plain = {path: method.handler for path, method in methods.items() if not method.edged}
    return [_Methods(own, edge), _Plain(plain), _UnknownMethods()]


def _wrapped(method: Method, edge: Edge) -> Handler:
    handler = method.handler
    many, decode = handler.request_streaming, handler.request_deserializer
    assert decode is not None
    guard = _Guard(method, edge, decode)
    if handler.response_streaming:
        sends = handler.stream_stream if many else handler.unary_stream
        return grpc.stream_stream_rpc_method_handler(
            guard.around(_streaming(cast(StreamBehaviour, sends), many)),
            response_serializer=handler.response_serializer,
        )
    if method.batch is not None:
        # Its replies are bytes already.
        return grpc.stream_unary_rpc_method_handler(guard.around(_batched(OneByOne(method.batch))))
    answers = handler.stream_unary if many else handler.unary_unary
    return grpc.stream_unary_rpc_method_handler(
        guard.around(_unary(cast(Behaviour, answers), many)),
        response_serializer=handler.response_serializer,
    )


class _Methods(grpc.GenericRpcHandler):
    """Finds the product's methods; where there is no room, finds a refusal in their place."""

    def __init__(self, methods: Mapping[str, Handler], edge: Edge) -> None:
        self._methods = methods
        self._edge = edge
        self._shed: Handler = grpc.stream_unary_rpc_method_handler(self._refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return what answers the call, None for a method that is not among these."""
        found = self._methods.get(handler_call_details.method)
        if found is None:
            return None
        gate = self._edge.gate
        gate.came += 1
        return found if gate.open and not gate.full else self._shed

    async def _refuse(self, _: object, context: Context) -> None:
        """Refuse a call whose message is never read."""
        answer = self._edge.shed()
        await context.abort(answer.code, answer.message, answer.trailers)


@dataclass(slots=True)
class _Call:
    """A call inside: how to read it, the bytes of it that are held, and when its time is over."""

    context: Context
    decode: Decode
    gate: Gate
    ends_at: float | None
    held: int = 0

    async def one(self) -> object:
        """Return the one request. Raises `MalformedMessage` and `Overloaded`."""
        return self._decoded(await self.raw())

    async def raw(self) -> bytes:
        """Return the one request as it came. Raises the same."""
        data = await self.context.read()
        if data is grpc.aio.EOF:
            raise MalformedMessage
        self._hold(cast(bytes, data))
        return cast(bytes, data)

    async def each(self) -> AsyncIterator[object]:
        """Yield the requests as they come, each read when it is asked for. Raises the same."""
        while (data := await self.context.read()) is not grpc.aio.EOF:
            self._hold(cast(bytes, data))
            yield self._decoded(cast(bytes, data))

    def end(self) -> None:
        """Count its bytes out."""
        self.gate.bytes -= self.held

    def _hold(self, data: bytes) -> None:
        """Count its bytes in place of those of the message before."""
        gate = self.gate
        gate.bytes -= self.held
        self.held = 0
        if not gate.takes(len(data)):
            raise Overloaded
        self.held = len(data)
        gate.bytes += self.held

    def _decoded(self, data: bytes) -> object:
        try:
            return self.decode(data)
        except DecodeError:
            # Without its cause, which would quote bytes that a caller chose into the log.
            raise MalformedMessage from None


Work = Callable[[_Call], Awaitable[Any]]


def _unary(behaviour: Behaviour, many: bool) -> Work:
    async def answered(call: _Call) -> object:
        return await behaviour(call.each() if many else await call.one(), call.context)

    return answered


def _batched(one_by_one: OneByOne) -> Work:
    async def answered(call: _Call) -> bytes:
        data = await call.raw()
        assert call.ends_at is not None
        return await one_by_one.answered(data, call.ends_at)

    return answered


def _streaming(behaviour: StreamBehaviour, many: bool) -> Work:
    """Send what comes. A caller that does not read holds the next message up, and no other call."""

    async def sent(call: _Call) -> None:
        request = call.each() if many else await call.one()
        async with aclosing(behaviour(request, call.context)) as messages:
            async for message in messages:
                await call.context.write(message)

    return sent


@dataclass(frozen=True, slots=True)
class _Guard:
    """What stands around a method."""

    method: Method
    edge: Edge
    decode: Decode

    def around(self, work: Work) -> Behaviour:
        """Return a handler that bounds the work and answers for what goes wrong in it."""
        method, edge = self.method, self.edge
        gate, observer = edge.gate, edge.observer
        default_s = None if method.streams else edge.options.default_deadline_s

        async def guarded(_: object, context: Context) -> object:
            started = asyncio.get_running_loop().time()
            observer.calls_started(1)
            code = OK
            gate.inside += 1
            call = _Call(context, self.decode, gate, None)
            try:
                # None where the caller set no deadline, whatever the stubs say.
                bound_s = edge.bound_s(cast(float | None, context.time_remaining()), default_s)
                async with asyncio.timeout(bound_s) as bound:
                    call.ends_at = bound.when()
                    if default_s is not None:
                        return await work(call)
                    gate.streams.add(bound)
                    try:
                        return await work(call)
                    finally:
                        gate.streams.discard(bound)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001  the edge is where everything ends
                answer = edge.answer(method, error)
                code = answer.code.name
            finally:
                call.end()
                gate.inside -= 1
                elapsed = asyncio.get_running_loop().time() - started
                observer.calls_ended(method.name, code, (elapsed,))
            # Outside of the handler above: abort raises, and must reach grpcio.
            await context.abort(answer.code, answer.message, answer.trailers)
            raise AssertionError("abort returned")

        spans = edge.options.spans
        return guarded if spans is None else _recorded(guarded, method.name, spans)


def _recorded(guarded: Behaviour, name: str, spans: CallSpans) -> Behaviour:
    """Return a handler that records calls as spans."""

    async def recorded(request: object, context: Context) -> object:
        span = spans.begin(name, context.invocation_metadata())
        if span is None:
            return await guarded(request, context)
        loop = asyncio.get_running_loop()
        started, code = loop.time(), OK
        with working_for(span):
            try:
                return await guarded(request, context)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = code_name(context.code())
                raise
            finally:
                spans.end(span, name, code, loop.time() - started)

    return recorded


class _Plain(grpc.GenericRpcHandler):
    """Finds methods that have no edge around them."""

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return what answers the call, None for a method that is not among these."""
        return self._methods.get(handler_call_details.method)


class _UnknownMethods(grpc.GenericRpcHandler):
    """Matches every method, so that it must come last."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return a handler that refuses the call."""

        async def refuse(_: object, context: Context) -> None:
            answer = refusal(UnknownMethod())
            await context.abort(answer.code, answer.message, answer.trailers)

        return grpc.unary_unary_rpc_method_handler(refuse)
