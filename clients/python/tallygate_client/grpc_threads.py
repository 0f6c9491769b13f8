"""The interceptor for `grpc.server`.

Guarantees that a call is settled when its handler has ended, whichever way, once. Refuses to know
what handlers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from .errors import TallygateError
from .interceptors import RpcCall, RpcRules, call_of, refusal_of, standing
from .metering.cost import Cost, Ending
from .metering.rules import TenantMissing
from .metering.till import Till

if TYPE_CHECKING:
    from .client import Client

COST_ATTRIBUTE = "tallygate"


class MeteringInterceptor(grpc.ServerInterceptor):
    """Charges the calls of a gRPC server; handlers find their `Cost` as `context.tallygate`."""

    def __init__(self, *, client: Client | Callable[[], Client], rules: RpcRules) -> None:
        self._till = Till(client)
        self._rules = rules

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Stand around the handler of a call."""
        handler = continuation(handler_call_details)
        call = call_of(handler_call_details)
        if handler is None:
            return None
        if handler.response_streaming:
            inner = handler.stream_stream or handler.unary_stream
            around: Callable[..., Any] = self._streaming(inner, call)
        else:
            inner = handler.stream_unary or handler.unary_unary
            around = self._unary(inner, call)
        kind = "stream" if handler.request_streaming else "unary"
        reply = "stream" if handler.response_streaming else "unary"
        make: Callable[..., Any] = getattr(grpc, f"{kind}_{reply}_rpc_method_handler")
        return make(
            around,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, inner: Callable[..., Any], call: RpcCall) -> Callable[..., Any]:
        def behavior(request: Any, context: Any) -> Any:
            cost = self._open(call, context)
            if cost is None:
                return inner(request, context)
            ending = Ending.FAILED
            try:
                reply = inner(self._received(request, cost), context)
                if self._rules.counts_sent:
                    cost.measure(1)
                ending = Ending.COMPLETE if context.is_active() else Ending.FAILED
                return reply
            finally:
                self._end(cost, ending, context)

        return behavior

    def _streaming(self, inner: Callable[..., Any], call: RpcCall) -> Callable[..., Any]:
        def behavior(request: Any, context: Any) -> Iterator[Any]:
            cost = self._open(call, context)
            if cost is None:
                yield from inner(request, context)
                return
            ending = Ending.FAILED
            try:
                for reply in inner(self._received(request, cost), context):
                    yield reply
                    # Whoever asks for the next has sent the one before.
                    if self._rules.counts_sent:
                        cost.measure(1)
                ending = Ending.COMPLETE if context.is_active() else Ending.LEFT
            except GeneratorExit:
                ending = Ending.LEFT
                raise
            finally:
                self._end(cost, ending, context)

        return behavior

    def _open(self, call: RpcCall, context: Any) -> Cost | None:
        """Ask for a call, or end it."""
        try:
            question = self._rules.question_of(call)
            if question is None:
                return None
            cost = self._till.open(question)
        except (TallygateError, TenantMissing) as error:
            refusal = refusal_of(error, self._rules)
            context.set_trailing_metadata(refusal.trailers)
            context.abort(refusal.code, refusal.message)
            raise AssertionError from error
        cost.measure(0)
        setattr(context, COST_ATTRIBUTE, cost)
        return cost

    def _received(self, request: Any, cost: Cost) -> Any:
        """Count what the client sends: a message, or one by one of a stream."""
        if not self._rules.counts_received:
            return request
        if not hasattr(request, "__next__"):
            cost.measure(1)
            return request

        def counted() -> Iterator[Any]:
            for message in request:
                cost.measure(1)
                yield message

        return counted()

    def _end(self, cost: Cost, ending: Ending, context: Any) -> None:
        told = standing(cost.decision)
        if told:
            context.set_trailing_metadata((*(context.trailing_metadata() or ()), *told))
        self._till.settle(cost, ending, context.code() in {None, grpc.StatusCode.OK})
