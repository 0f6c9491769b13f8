"""Around every method: decoding, deadline, error table, metrics, one log line per surprise.

Guarantees: bytes that do not decode, methods that do not exist and exceptions nobody expected all
reach the caller as a mapped status; a call without a deadline gets one, but a stream lasts until
its caller ends it or the service stops.
Refuses to know: what methods do.

Handlers are wrapped once, when they are registered: an interceptor would cost every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from tallygate.api.status import (
    DeadlinePassed,
    MalformedMessage,
    Refusal,
    UnknownMethod,
    refusal,
    shown,
)
from tallygate.domain.errors import Draining, TallygateError

OK: Final = "OK"
# A caller that waits longer than a day has set no deadline that means anything.
LONGEST_S: Final = 86_400.0

log = structlog.get_logger(__name__)

# The request's type is the generated code's affair: handlers are typed where they are written.
Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncGenerator[Any, None]]


class EdgeObserver(Protocol):
    """What the edge tells of calls."""

    def call_started(self) -> None:
        """A call has arrived."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call was answered, with the status code's name."""


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """How calls are bounded."""

    default_deadline_s: float
    observer: EdgeObserver


@dataclass(slots=True)
class Gate:
    """Whether calls are let in, how many are inside, and the streams among them."""

    open: bool = True
    inside: int = 0
    streams: set[asyncio.Timeout] = field(default_factory=set)

    def close(self) -> None:
        """Let no more calls in, and end the streams: they would not end by themselves."""
        self.open = False
        for stream in self.streams:
            if not stream.expired():
                stream.reschedule(asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands in for a request that did not decode."""


class Registry:
    """Takes the place of a server while servicers register, and wraps what they bring."""

    def __init__(self, server: grpc.aio.Server, options: EdgeOptions) -> None:
        self._server = server
        self._options = options
        self.gate = Gate()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the service's methods, each wrapped."""
        wrapped = {
            name: self._wrapped(f"{service}/{name}", handler) for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, wrapped)
        self._server.add_generic_rpc_handlers((generic,))

    def refuse_unknown_methods(self) -> None:
        """Answer methods that nobody registered with a status like any other. Call this last."""
        self._server.add_generic_rpc_handlers((_UnknownMethods(),))

    def _wrapped(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        assert not handler.request_streaming, f"{method} streams requests, which nothing bounds yet"
        decode = _lenient(handler.request_deserializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(
                    method, cast(StreamBehaviour, handler.unary_stream), self._options, self.gate
                ),
                request_deserializer=decode,
                response_serializer=handler.response_serializer,
            )
        behaviour = cast(Behaviour, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(
            _guarded(method, behaviour, self._options, self.gate),
            request_deserializer=decode,
            response_serializer=handler.response_serializer,
        )


def remaining_s(context: Context, default_s: float) -> float:
    """Return the seconds that the caller still waits, at most `LONGEST_S`."""
    # None where the caller set no deadline, whatever the stubs say.
    remaining: float | None = context.time_remaining()
    return default_s if remaining is None else min(remaining, LONGEST_S)


def _lenient(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return a decoder that does not raise: grpcio would answer UNKNOWN with the decoder's text."""
    assert decode is not None

    def decode_or_mark(data: bytes) -> Message | _Malformed:
        try:
            return cast(Message, decode(data))
        except DecodeError:
            return _Malformed()

    return decode_or_mark


def _guarded(method: str, behaviour: Behaviour, options: EdgeOptions, gate: Gate) -> Behaviour:
    observer = options.observer

    async def guarded(request: object, context: Context) -> object:
        started = asyncio.get_running_loop().time()
        observer.call_started()
        code = OK
        gate.inside += 1
        try:
            if not gate.open:
                raise Draining
            if isinstance(request, _Malformed):
                raise MalformedMessage
            async with asyncio.timeout(remaining_s(context, options.default_deadline_s)):
                return await behaviour(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001  the edge is where everything ends
            answer = _answer(method, error)
            code = answer.code.name
        finally:
            gate.inside -= 1
            elapsed = asyncio.get_running_loop().time() - started
            observer.call_ended(method, code, elapsed)
        # Outside of the handler above: abort raises, and must reach grpcio.
        await context.abort(answer.code, answer.message, answer.trailers)
        raise AssertionError("abort returned")

    return guarded


def _guarded_stream(
    method: str, behaviour: StreamBehaviour, options: EdgeOptions, gate: Gate
) -> Behaviour:
    observer = options.observer

    async def guarded(request: object, context: Context) -> None:
        started = asyncio.get_running_loop().time()
        observer.call_started()
        code = OK
        gate.inside += 1
        try:
            if not gate.open:
                raise Draining
            if isinstance(request, _Malformed):
                raise MalformedMessage
            await _send_all(behaviour(request, context), context, gate)
            return
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001  the edge is where everything ends
            # The only clock that runs out on a stream but its caller's is the gate's.
            answer = _answer(method, Draining() if _cut(error, gate) else error)
            code = answer.code.name
        finally:
            gate.inside -= 1
            elapsed = asyncio.get_running_loop().time() - started
            observer.call_ended(method, code, elapsed)
        await context.abort(answer.code, answer.message, answer.trailers)

    return guarded


async def _send_all(messages: AsyncGenerator[Any, None], context: Context, gate: Gate) -> None:
    """Send what comes. A caller that does not read holds the next message up, and no other call."""
    remaining: float | None = context.time_remaining()
    async with asyncio.timeout(remaining) as bound, aclosing(messages):
        gate.streams.add(bound)
        try:
            async for message in messages:
                await context.write(message)
        finally:
            gate.streams.discard(bound)


def _cut(error: Exception, gate: Gate) -> bool:
    return isinstance(error, TimeoutError) and not gate.open


def _answer(method: str, error: Exception) -> Refusal:
    if isinstance(error, TimeoutError):
        error = DeadlinePassed()
    visible = shown(error)
    if visible is not error:
        log.error("call_failed", method=method, reference=str(visible), exc_info=error)
    elif error.__cause__ is not None and isinstance(error, TallygateError):
        log.warning(
            "backend_failed", method=method, reason=error.reason, cause=repr(error.__cause__)
        )
    return refusal(visible)


class _UnknownMethods(grpc.GenericRpcHandler):
    """Matches every method, so that it must come last."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return a handler that refuses the call."""

        async def refuse(_: object, context: Context) -> None:
            answer = refusal(UnknownMethod())
            await context.abort(answer.code, answer.message, answer.trailers)

        return grpc.unary_unary_rpc_method_handler(refuse)
