"""Around every method: room, deadline, decoding, error table, metrics, one log line per surprise.

Guarantees: bytes that do not decode, methods that do not exist and exceptions nobody expected all
reach the caller as a mapped status; a call without a deadline gets one, but a stream lasts until
its caller ends it or the service stops. Calls inside, and the bytes of their requests, are bounded:
where there is no room, or no time left, a message is neither read nor decoded.
Refuses to know: what methods do.

Handlers are wrapped once, when they are registered: an interceptor would cost every call. To grpcio
all of them stream, as it would otherwise read a request before anybody could refuse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from tallygate.api.status import (
    DeadlinePassed,
    MalformedMessage,
    Refusal,
    UnknownMethod,
    refusal,
    shown,
)
from tallygate.domain.errors import Draining, Overloaded, TallygateError

OK: Final = "OK"
# A caller that waits longer than a day has set no deadline that means anything.
LONGEST_S: Final = 86_400.0
# grpcio rounds a deadline up to the next millisecond: what has less left is over.
HOPELESS_S: Final = 0.001
# What the defaults of the settings of these names are, and why, is said there.
CALLS_MAX: Final = 8_192
CALLS_MAX_BYTES: Final = 64 * 1024 * 1024

log = structlog.get_logger(__name__)

# The request's type is the generated code's affair: handlers are typed where they are written.
Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncGenerator[Any, None]]

Decode = Callable[[bytes], Any]


class EdgeObserver(Protocol):
    """What the edge tells of calls."""

    def call_started(self) -> None:
        """A call has arrived."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call was answered, with the status code's name."""

    def call_shed(self) -> None:
        """A call was refused unread, for want of room."""


def _no_matter() -> int | None:
    """Leave it to the error table when a refused caller may come back."""
    return None


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """How calls are bounded.

    `pushback_us` notes that one more was refused, and says after how many µs it may come back.
    """

    default_deadline_s: float
    observer: EdgeObserver
    calls_max: int = CALLS_MAX
    calls_max_bytes: int = CALLS_MAX_BYTES
    pushback_us: Callable[[], int | None] = _no_matter


@dataclass(slots=True)
class Gate:
    """Whether calls are let in, how many are inside with how many bytes, and their streams."""

    calls_max: int = CALLS_MAX
    bytes_max: int = CALLS_MAX_BYTES
    open: bool = True
    inside: int = 0
    bytes: int = 0
    # Calls that ever came, let in or not: a stop waits until no more do.
    came: int = 0
    streams: set[asyncio.Timeout] = field(default_factory=set)

    @property
    def full(self) -> bool:
        """Whether one more call would be too many."""
        return self.inside >= self.calls_max or self.bytes >= self.bytes_max

    def close(self) -> None:
        """Let no more calls in, and end the streams: they would not end by themselves."""
        self.open = False
        for stream in self.streams:
            if not stream.expired():
                stream.reschedule(asyncio.get_running_loop().time())


class Registry:
    """Takes the place of a server while servicers register, and wraps what they bring."""

    def __init__(self, server: grpc.aio.Server, options: EdgeOptions) -> None:
        self._server = server
        self._options = options
        self.gate = Gate(options.calls_max, options.calls_max_bytes)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Register the service's methods, each wrapped."""
        wrapped = {
            f"/{service}/{name}": self._wrapped(f"{service}/{name}", handler)
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((_Methods(wrapped, self.gate, self._options),))

    def refuse_unknown_methods(self) -> None:
        """Answer methods that nobody registered with a status like any other. Call this last."""
        self._server.add_generic_rpc_handlers((_UnknownMethods(),))

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        many, decode = handler.request_streaming, handler.request_deserializer
        assert decode is not None
        default_s = None if many or handler.response_streaming else self._options.default_deadline_s
        guard = _Guard(method, self._options, self.gate, decode, default_s)
        if handler.response_streaming:
            sends = handler.stream_stream if many else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(
                guard.around(_streaming(cast(StreamBehaviour, sends), many)),
                response_serializer=handler.response_serializer,
            )
        answers = handler.stream_unary if many else handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(
            guard.around(_unary(cast(Behaviour, answers), many)),
            response_serializer=handler.response_serializer,
        )


class _Methods(grpc.GenericRpcHandler):
    """Finds a service's methods; where there is no room, finds a refusal in their place."""

    def __init__(
        self,
        methods: Mapping[str, Handler],
        gate: Gate,
        options: EdgeOptions,
    ) -> None:
        self._methods = methods
        self._gate = gate
        self._options = options
        self._shed: Handler = grpc.stream_unary_rpc_method_handler(self._refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return what answers the call, None for a method of another service."""
        found = self._methods.get(handler_call_details.method)
        if found is None:
            return None
        gate = self._gate
        gate.came += 1
        return found if gate.open and not gate.full else self._shed

    async def _refuse(self, _: object, context: Context) -> None:
        """Refuse a call whose message is never read."""
        self._options.observer.call_shed()
        error = Overloaded if self._gate.open else Draining
        answer = refusal(error(retry_after_us=self._options.pushback_us()))
        await context.abort(answer.code, answer.message, answer.trailers)


def remaining_s(context: Context, default_s: float) -> float:
    """Return the seconds that the caller still waits, at most `LONGEST_S`."""
    # None where the caller set no deadline, whatever the stubs say.
    remaining: float | None = context.time_remaining()
    return default_s if remaining is None else min(remaining, LONGEST_S)


@dataclass(slots=True)
class _Call:
    """A call inside: how to read it, and the bytes of it that are held."""

    context: Context
    decode: Decode
    gate: Gate
    held: int = 0

    async def one(self) -> object:
        """Return the one request. Raises `MalformedMessage` and `Overloaded`."""
        data = await self.context.read()
        if data is grpc.aio.EOF:
            raise MalformedMessage
        return self._decoded(cast(bytes, data))

    async def each(self) -> AsyncIterator[object]:
        """Yield the requests as they come, each read when it is asked for. Raises the same."""
        while (data := await self.context.read()) is not grpc.aio.EOF:
            yield self._decoded(cast(bytes, data))

    def end(self) -> None:
        """Count its bytes out."""
        self.gate.bytes -= self.held

    def _decoded(self, data: bytes) -> object:
        gate = self.gate
        gate.bytes += len(data) - self.held
        self.held = len(data)
        # A message that is as large as all the room is taken when it is alone.
        if gate.bytes > gate.bytes_max and gate.bytes > self.held:
            raise Overloaded
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
    """What stands around a method. Without a default deadline it lasts until it is ended."""

    method: str
    options: EdgeOptions
    gate: Gate
    decode: Decode
    default_s: float | None

    def around(self, work: Work) -> Behaviour:
        """Return a handler that bounds the work and answers for what goes wrong in it."""
        gate, observer = self.gate, self.options.observer

        async def guarded(_: object, context: Context) -> object:
            started = asyncio.get_running_loop().time()
            observer.call_started()
            code = OK
            gate.inside += 1
            call = _Call(context, self.decode, gate)
            try:
                async with asyncio.timeout(self._bound_s(context)) as bound:
                    if self.default_s is not None:
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
                answer = _answer(self.method, self._meant(error))
                code = answer.code.name
            finally:
                call.end()
                gate.inside -= 1
                elapsed = asyncio.get_running_loop().time() - started
                observer.call_ended(self.method, code, elapsed)
            # Outside of the handler above: abort raises, and must reach grpcio.
            await context.abort(answer.code, answer.message, answer.trailers)
            raise AssertionError("abort returned")

        return guarded

    def _bound_s(self, context: Context) -> float | None:
        """Return the seconds that it may take. Raises `DeadlinePassed` if there are none."""
        # None where the caller set no deadline, whatever the stubs say.
        remaining: float | None = context.time_remaining()
        if remaining is None:
            return self.default_s
        if remaining <= HOPELESS_S:
            raise DeadlinePassed
        return min(remaining, LONGEST_S)

    def _meant(self, error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            # The only clock that runs out on a stream but its caller's is the gate's.
            cut = self.default_s is None and not self.gate.open
            return Draining() if cut else DeadlinePassed()
        if isinstance(error, Overloaded) and error.retry_after_us is None:
            return Overloaded(retry_after_us=self.options.pushback_us())
        return error


def _answer(method: str, error: Exception) -> Refusal:
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

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return a handler that refuses the call."""

        async def refuse(_: object, context: Context) -> None:
            answer = refusal(UnknownMethod())
            await context.abort(answer.code, answer.message, answer.trailers)

        return grpc.unary_unary_rpc_method_handler(refuse)
