"""The connection of a client for threads: opened when first used, anew in a forked child."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

from .calls import METHODS, Call, Core
from .cancellation import Cancellation
from .channels import sync_channel
from .errors import Closed, Unavailable
from .forks import begin_anew_when_forked
from .options import ClientOptions
from .results import QuotaChange, change_of
from .watching import Watching

T = TypeVar("T")


class Line:
    """A channel, and how a call is made on it."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._begin()
        begin_anew_when_forked(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._pauses: set[threading.Event] = set()
        self._channel: grpc.Channel | None = None
        self._callables: dict[str, Any] = {}

    def forked(self) -> None:
        """Begin anew in a forked child: a connection belongs to the process that made it."""
        # Kept alive: its end would tell the parent's peer, on the parent's own socket.
        _LEFT_TO_PARENT.append(self._channel)
        self._begin()

    def send(self, core: Core, call: Call[T]) -> T:
        """Make one logical call."""
        core.check_open(call)
        timeout = core.timeout_of(call)
        method = self._callables.get(call.method) or self._callable(call.method)
        began = time.monotonic()
        try:
            if call.cancel is None:
                reply = method(call.request, timeout=timeout)
            else:
                reply = _cancellable(method, call.request, timeout, call.cancel)
        except grpc.FutureCancelledError:
            raise core.cancelled(call, began) from None
        except grpc.RpcError as error:
            return core.failed(call, error, began)
        except ValueError:
            # So grpcio says that another thread has closed the channel meanwhile.
            if core.closed:
                raise core.closed_error(call) from None
            raise
        return core.answered(call, reply, began)

    def stream(self, core: Core, watching: Watching, request: Any) -> Iterator[QuotaChange]:
        """Yield the messages of one stream; ends by itself only when the caller ended it."""
        call = watching.call(request)
        if core.closed:
            return
        began = time.monotonic()
        replies = self._callable(call.method)(request, timeout=watching.left_s())
        if watching.cancel is not None:
            watching.cancel.attach(replies.cancel)
        try:
            for reply in replies:
                watching.received()
                yield change_of(reply)
            if not watching.ended_by_caller():
                raise Unavailable("the stream ended without a status")
        except grpc.RpcError as error:
            if not watching.ended_by_caller():
                core.failed(call, error, began)
        finally:
            replies.cancel()
            if watching.cancel is not None:
                watching.cancel.detach(replies.cancel)

    def pause(self, seconds: float, cancel: Cancellation | None) -> bool:
        """Wait; tell whether the caller has ended it meanwhile."""
        ended = threading.Event()
        with self._lock:
            if self._closed:
                return True
            self._pauses.add(ended)
        if cancel is not None:
            cancel.attach(ended.set)
        try:
            return ended.wait(seconds)
        finally:
            self._pauses.discard(ended)
            if cancel is not None:
                cancel.detach(ended.set)

    def close(self) -> None:
        """End the connection and what is under way on it."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._callables = {}
            for each in self._pauses:
                each.set()
        if channel is not None:
            channel.close()

    def _callable(self, name: str) -> Any:
        with self._lock:
            if self._closed:
                raise Closed("the client is closed")
            if self._channel is None:
                self._channel = sync_channel(self._options)
            if name not in self._callables:
                method = METHODS[name]
                channel = self._channel
                streams = name == "WatchQuota"
                make: Any = channel.unary_stream if streams else channel.unary_unary
                self._callables[name] = make(
                    method.path,
                    request_serializer=method.request.SerializeToString,
                    response_deserializer=method.response.FromString,
                )
            return self._callables[name]


_LEFT_TO_PARENT: list[grpc.Channel | None] = []


def _cancellable(method: Any, request: Any, timeout: float, cancel: Cancellation) -> Any:
    """Make a call that another thread may cancel."""
    future = method.future(request, timeout=timeout)
    cancel.attach(future.cancel)
    try:
        return future.result()
    finally:
        cancel.detach(future.cancel)
