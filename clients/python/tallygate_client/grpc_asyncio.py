"""The interceptor for `grpc.aio.server`.

Guarantees that a call is settled when its handler has ended, whichever way, once; also where its
client has cancelled it. Refuses handlers that are not asynchronous, rather than let them pass.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .errors import TallygateError
from .grpc_threads import COST_ATTRIBUTE
from .interceptors import RpcCall, RpcRules, call_of, refusal_of, standing
from .metering.cost import Cost, Ending
from .metering.rules import Question, TenantMissing
from .metering.till import AsyncTill

if TYPE_CHECKING:
    from .aio import AsyncClient


class AsyncMeteringInterceptor(grpc.aio.ServerInterceptor):
    """Charges the calls of an asyncio gRPC server; handlers find `context.tallygate`."""

    def __init__(self, *, client: AsyncClient | Callable[[], AsyncClient], rules: RpcRules) -> None:
        self._till = AsyncTill(client)
        self._rules = rules
        self._settling: set[asyncio.Task[None]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Stand around the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = "stream" if handler.request_streaming else "unary"
        reply = "stream" if handler.response_streaming else "unary"
        inner = getattr(handler, f"{kind}_{reply}")
        make: Callable[..., Any] = getattr(grpc, f"{kind}_{reply}_rpc_method_handler")
        return make(
            self._around(inner, call_of(handler_call_details)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _around(self, inner: Callable[..., Any], call: RpcCall) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(inner):
            return self._generating(inner, call)
        if not inspect.iscoroutinefunction(inner):
            raise TypeError(f"{call.method}: only handlers written with async can be metered")
        return self._returning(inner, call)

    def _returning(self, inner: Callable[..., Any], call: RpcCall) -> Callable[..., Any]:
        async def behavior(request: Any, context: Any) -> Any:
            cost = await self._open(call, context)
            if cost is None:
                return await inner(request, context)
            watched, ending = _Context(context, cost, counts=self._rules.counts_sent), Ending.FAILED
            try:
                reply = await inner(self._received(request, cost), watched)
                if reply is not None and self._rules.counts_sent:
                    cost.measure(1)
                ending = Ending.COMPLETE
                return reply
            except asyncio.CancelledError:
                ending = Ending.LEFT if watched.written else Ending.FAILED
                raise
            finally:
                self._end(cost, ending, context)

        return behavior

    def _generating(self, inner: Callable[..., Any], call: RpcCall) -> Callable[..., Any]:
        async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
            cost = await self._open(call, context)
            if cost is None:
                async for reply in inner(request, context):
                    yield reply
                return
            watched, ending = _Context(context, cost, counts=False), Ending.FAILED
            try:
                async for reply in inner(self._received(request, cost), watched):
                    yield reply
                    # Whoever asks for the next has sent the one before.
                    if self._rules.counts_sent:
                        cost.measure(1)
                ending = Ending.COMPLETE
            except (GeneratorExit, asyncio.CancelledError):
                ending = Ending.LEFT
                raise
            finally:
                self._end(cost, ending, context)

        return behavior

    async def _open(self, call: RpcCall, context: Any) -> Cost | None:
        """Ask for a call, or end it."""
        try:
            question = await self._question(call)
            if question is None:
                return None
            cost = await self._till.open(question)
        except (TallygateError, TenantMissing) as error:
            refusal = refusal_of(error, self._rules)
            await context.abort(refusal.code, refusal.message, refusal.trailers)
            raise AssertionError from error
        cost.measure(0)
        return cost

    async def _question(self, call: RpcCall) -> Question | None:
        rules = self._rules
        if rules.exempt is not None and rules.exempt(call):
            return None
        tenant, cost = rules.tenant_of(call), rules.cost_of(call)
        tenant = await tenant if inspect.isawaitable(tenant) else tenant
        return rules.question(call, tenant, await cost if inspect.isawaitable(cost) else cost)

    def _received(self, request: Any, cost: Cost) -> Any:
        """Count what the client sends: a message, or one by one of a stream."""
        if not self._rules.counts_received:
            return request
        if not hasattr(request, "__aiter__"):
            cost.measure(1)
            return request

        async def counted() -> AsyncIterator[Any]:
            async for message in request:
                cost.measure(1)
                yield message

        return counted()

    def _end(self, cost: Cost, ending: Ending, context: Any) -> None:
        told = standing(cost.decision)
        if told:
            context.set_trailing_metadata((*(context.trailing_metadata() or ()), *told))
        charged = context.code() in {None, 0, grpc.StatusCode.OK}
        # A cancelled call's own task may wait for nothing any more.
        task = asyncio.ensure_future(self._till.settle(cost, ending, charged))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


class _Context:
    """A call's context that counts what is written, and holds the call's cost."""

    def __init__(self, context: Any, cost: Cost, *, counts: bool) -> None:
        setattr(self, COST_ATTRIBUTE, cost)
        self.written = 0
        self._context = context
        self._cost = cost
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Send a message, and count it."""
        await self._context.write(message)
        self.written += 1
        if self._counts:
            self._cost.measure(1)
