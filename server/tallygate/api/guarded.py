"""Methods with the rules for callers around them: each call, each request of a list, needs leave.

Guarantees: every method that is registered here is guarded, and one that nobody has said how to
guard cannot be registered; a stream is looked at again when the rules change. Without rules nothing
of this is there, and no call pays for it.
Refuses to know: what methods do, and what the rules are.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message

from tallygate.api import convert
from tallygate.api.asked import AskedOf, asked_of
from tallygate.api.batched import BatchMethods
from tallygate.api.caller import Permits, caller_of
from tallygate.api.edge import Behaviour, Context, Handler, StreamBehaviour, remaining_s
from tallygate.api.one_by_one import OneByOne
from tallygate.api.status import MalformedMessage, item_error
from tallygate.domain.errors import TallygateError
from tallygate.domain.identity import Service
from tallygate.gen.v1 import quota_pb2, usage_pb2

SERVICES: Final = {
    "tallygate.v1.QuotaService": Service.QUOTA,
    "tallygate.v1.UsageService": Service.USAGE,
}
# Of the methods that take lists: the request, one result, and the response.
_LISTS: Final[Mapping[str, tuple[Any, Any, Any]]] = {
    "BatchCheckAndConsume": (
        quota_pb2.BatchCheckAndConsumeRequest,
        quota_pb2.BatchCheckAndConsumeResult,
        quota_pb2.BatchCheckAndConsumeResponse,
    ),
    "BatchRecordUsage": (
        usage_pb2.BatchRecordUsageRequest,
        usage_pb2.BatchRecordUsageResult,
        usage_pb2.BatchRecordUsageResponse,
    ),
    "StreamRecordUsage": (
        usage_pb2.StreamRecordUsageRequest,
        usage_pb2.BatchRecordUsageResult,
        usage_pb2.StreamRecordUsageResponse,
    ),
}

Ask = Callable[[Any], Awaitable[Any]]
"""Has a list answered, and gives its response."""


class Methods(Protocol):
    """What takes the methods of a service."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Take them."""
        ...


class GuardedRegistry:
    """Takes the place of a registry while servicers register, and wraps what they bring.

    `batched` are the methods that take calls in batches: here they are asked one call at a time, as
    calls that come together are not one caller's.
    """

    def __init__(
        self,
        registry: Methods,
        permits: Permits,
        default_deadline_s: float,
        batched: BatchMethods | None = None,
    ) -> None:
        self._registry = registry
        self._permits = permits
        self._default_deadline_s = default_deadline_s
        self._batched = batched or {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Register the service's methods, each with the rules around it."""
        kind = SERVICES[service]
        wrapped = {}
        for name, handler in handlers.items():
            guard = _Guard(self._permits, kind, asked_of(name), name)
            batch = self._batched.get(f"{service}/{name}")
            if batch is not None:
                one = OneByOne(batch)
                wrapped[name] = guard.batched(handler, one, self._default_deadline_s)
            else:
                wrapped[name] = guard.around(handler)
        self._registry.add_registered_method_handlers(service, wrapped)


@dataclass(frozen=True, slots=True)
class _Guard:
    """One method's."""

    permits: Permits
    service: Service
    asked_of: AskedOf
    name: str

    def around(self, handler: Handler) -> Handler:
        """Return the handler with the rules around it."""
        if handler.request_streaming:
            made: Callable[..., Handler] = grpc.stream_stream_rpc_method_handler
            behaviour: Any = self._lists(cast(StreamBehaviour, handler.stream_stream))
        elif handler.response_streaming:
            made = grpc.unary_stream_rpc_method_handler
            behaviour = self._streaming(cast(StreamBehaviour, handler.unary_stream))
        else:
            made = grpc.unary_unary_rpc_method_handler
            behaviour = self._unary(cast(Behaviour, handler.unary_unary))
        return made(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def batched(self, handler: Handler, one: OneByOne, default_s: float) -> Handler:
        """Return the handler of a method that takes encoded requests, and gives such replies."""
        decode = handler.request_deserializer
        assert decode is not None
        listed = self.name in _LISTS

        async def answered(data: bytes, context: Context) -> bytes:
            ends_at = asyncio.get_running_loop().time() + remaining_s(context, default_s)
            try:
                message = decode(data)
            except DecodeError:
                # Without its cause, which would quote bytes that a caller chose into the log.
                raise MalformedMessage from None
            caller = caller_of(context)
            if not listed:
                self._check(caller, message)
                return await one.answered(data, ends_at)

            async def ask(kept: Any) -> Any:  # noqa: ANN401  the method's own
                encoded = data if kept is message else kept.SerializeToString()
                return reply.FromString(await one.answered(encoded, ends_at))

            _, _, reply = _LISTS[self.name]
            sifted: bytes = (await self._sifted(caller, message, ask)).SerializeToString()
            return sifted

        return grpc.unary_unary_rpc_method_handler(answered, bytes, bytes)

    def _check(self, caller: str, message: Any) -> None:  # noqa: ANN401  the method's own
        """Raise `PermissionDenied` and what `Permits.check` raises else, unless there is leave."""
        tenant, meters = self.asked_of(message)
        self.permits.check(caller, self.service, tenant, meters)

    def _unary(self, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Message, context: Context) -> object:
            self._check(caller_of(context), request)
            return await behaviour(request, context)

        return guarded

    def _streaming(self, behaviour: StreamBehaviour) -> StreamBehaviour:
        """Look again before each message, where the rules have changed since the last."""

        async def guarded(request: Message, context: Context) -> AsyncGenerator[Any, None]:
            caller, version = caller_of(context), self.permits.version
            self._check(caller, request)
            async with aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    if version != self.permits.version:
                        version = self.permits.version
                        self._check(caller, request)
                    yield message

        return guarded

    def _lists(self, behaviour: StreamBehaviour) -> StreamBehaviour:
        async def guarded(
            requests: AsyncIterator[Message], context: Context
        ) -> AsyncGenerator[Any, None]:
            caller = caller_of(context)

            async def ask(kept: Any) -> Any:  # noqa: ANN401  the method's own
                async with aclosing(behaviour(_alone(kept), context)) as answers:
                    return await anext(answers)

            async for request in requests:
                yield await self._sifted(caller, request, ask)

        return guarded

    async def _sifted(self, caller: str, message: Any, ask: Ask) -> Any:  # noqa: ANN401
        """Ask for what there is leave for, and put the refusals of the rest between the answers."""
        # Before each is looked at: there may be any number of them.
        convert.counted(message.requests)
        refused: dict[int, TallygateError] = {}
        for index, each in enumerate(message.requests):
            try:
                self._check(caller, each)
            except TallygateError as error:
                refused[index] = error
        if not refused:
            return await ask(message)
        request, result, reply = _LISTS[self.name]
        kept = [each for index, each in enumerate(message.requests) if index not in refused]
        answers = iter((await ask(request(requests=kept))).results if kept else ())
        return reply(
            results=[
                result(error=item_error(refused[index])) if index in refused else next(answers)
                for index in range(len(message.requests))
            ]
        )


async def _alone(message: object) -> AsyncIterator[object]:
    yield message
