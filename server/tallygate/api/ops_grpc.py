"""gRPC health and reflection for the ops listener, on threads of their own.

Guarantees: `Check` and `List` say NOT_SERVING while the main loop is stalled; watchers take no
thread each; reflection streams, which do, are bounded.
Refuses to know: what serves, and where calls come from.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

THREADS: Final = 8
REFLECTIONS_MAX: Final = 4
"""Half of the threads: a forgotten reflection client must not keep a health check waiting."""

CALLS_MAX: Final = 256
"""Watchers among them; one more is refused as RESOURCE_EXHAUSTED."""

MESSAGE_BYTES_MAX: Final = 64 * 1024
GRACE_S: Final = 0.5

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Send = Callable[[Any], None]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it ships no types
    """The standard service: aware of a stalled main loop, and with `List`.

    grpcio's own servicer holds one lock while it tells watchers, and takes it again when a watcher
    leaves: the two deadlock. Here what a leaving watcher takes is never held while telling.
    """

    def __init__(self, services: Sequence[str], stalled: Callable[[], float | None]) -> None:
        # Until told otherwise: a process that has just started serves nothing yet.
        self._statuses: dict[str, int] = dict.fromkeys(["", *services], NOT_SERVING)
        self._stalled = stalled
        self._watchers: dict[str, set[Send]] = {}
        self._telling = threading.Lock()
        self._members = threading.Lock()

    def tell(self, service: str, status: int) -> None:
        """Set a service's status and send it to its watchers, in the order of the changes."""
        with self._telling:
            self._statuses[service] = status
            with self._members:
                watchers = [*self._watchers.get(service, ())]
            for send in watchers:
                send(_answer(status))

    def end(self) -> None:
        """Set every service to NOT_SERVING."""
        for name in [*self._statuses]:
            self.tell(name, NOT_SERVING)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - as generated
        """Return a service's status; NOT_FOUND for one that was never named."""
        status = self._statuses.get(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _answer(self._now(status or NOT_SERVING))

    def List(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - as generated
        """Return the status of every service."""
        return health_pb2.HealthListResponse(
            statuses={name: _answer(self._now(each)) for name, each in [*self._statuses.items()]}
        )

    def Watch(  # noqa: N802
        self,
        request: Any,  # noqa: ANN401 - as generated
        context: Any,  # noqa: ANN401
        send: Send,
    ) -> None:
        """Send the status now and at each change; takes no thread meanwhile."""
        service = request.service

        def leave() -> None:
            with self._members:
                self._watchers[service].discard(send)
                if not self._watchers[service]:
                    del self._watchers[service]

        with self._telling:
            with self._members:
                self._watchers.setdefault(service, set()).add(send)
            send(_answer(self._statuses.get(service, SERVICE_UNKNOWN)))
        if not context.add_callback(leave):
            leave()

    # How grpcio is told to hand over a callback in place of taking an iterator.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]
    Watch.experimental_thread_pool = None  # type: ignore[attr-defined]

    def _now(self, status: int) -> int:
        return NOT_SERVING if self._stalled() is not None else status


def _answer(status: int) -> Any:  # noqa: ANN401 - the message has no types
    return health_pb2.HealthCheckResponse(status=status)


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]  # nor this
    """The standard service, for a few clients at once."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__(services)
        self._room = threading.BoundedSemaphore(REFLECTIONS_MAX)

    def ServerReflectionInfo(  # noqa: N802
        self,
        request_iterator: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer one client's questions until it ends."""
        if not self._room.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reflection clients")
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._room.release()


class OpsGrpc:
    """A small gRPC server with health and reflection alone."""

    def __init__(self, services: Sequence[str], stalled: Callable[[], float | None]) -> None:
        self._health = Health(services, stalled)
        self._reflection = Reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME])
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tallygate-ops-grpc")
        self._server: grpc.Server | None = None

    def set_serving(self, service: str, serving: bool) -> None:
        """Set a service's status, and tell its watchers."""
        self._health.tell(service, SERVING if serving else NOT_SERVING)

    def start(self, address: str) -> None:
        """Listen on the address and serve."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=CALLS_MAX)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._reflection, self._server)
        self._server.add_insecure_port(address)
        self._server.start()

    def stop(self) -> None:
        """Say NOT_SERVING to all, and end after a short grace."""
        self._health.end()
        if self._server is not None:
            self._server.stop(GRACE_S).wait(GRACE_S + 1)
        self._pool.shutdown(wait=False, cancel_futures=True)
