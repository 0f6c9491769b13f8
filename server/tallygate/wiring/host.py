"""What every role of a process is put together with: settings, connections, loops and servers.

Guarantees: what is opened or started through a host is closed by its process, in the opposite
order; a process has one pool to Postgres, and a connection to Redis for each who asks.
Refuses to know: roles.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.prometheus.flows import LoopMetrics, PoolMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import EdgeMetrics
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.credentials import RedisCredentials
from tallygate.api.batched import BatchMethods
from tallygate.api.edge import EdgeOptions
from tallygate.api.ops_pages import Readiness
from tallygate.api.server import Register, Server, ServerOptions
from tallygate.api.socket_lock import path_of
from tallygate.api.traced import CallSpans
from tallygate.api.transport import TransportName
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.settings import Settings
from tallygate.wiring.place import ALONE, Place
from tallygate.wiring.rotating import LOOK_MS, Rotation, taking_redis
from tallygate.wiring.securing import Secured, secured
from tallygate.wiring.steps import Step
from tallygate.wiring.tracing import Tracing, open_tracing

if TYPE_CHECKING:
    from tallygate.adapters.postgres.pool import Postgres


@dataclass(slots=True)
class Running:
    """A process that is up: where it listens, its metrics, and whether it can answer yet.

    `unfinished` says how much its journal holds that is needed: events, operations, reservations.
    """

    metrics: Metrics
    readiness: Callable[[], Readiness]
    unfinished: Callable[[], int] = int
    grpc_addresses: list[str] = field(default_factory=list)
    control_addresses: list[str] = field(default_factory=list)
    envoy_addresses: list[str] = field(default_factory=list)
    ops_port: int = 0
    http_port: int = 0

    def ready(self) -> bool:
        """Say whether calls should be sent here."""
        return self.readiness().ready


def _usual() -> int | None:
    """Leave it to the edge when a refused caller may come back."""
    return None


class Host:
    """Lends a role what it needs. `stack` ends before `connections`; both in opposite order."""

    def __init__(self, settings: Settings, metrics: Metrics, place: Place = ALONE) -> None:
        self.settings: Final = settings
        self.metrics: Final = metrics
        self.place: Final = place
        self.clock: Final = SystemClock()
        self.observer: Final = LoopMetrics(metrics)
        self.stack: Final = AsyncExitStack()
        self.connections: Final = AsyncExitStack()
        # Until files are read, which may fail.
        self.secured = Secured()
        # What records spans; None where tracing is off.
        self.tracing: Tracing | None = None
        # What readiness asks, by name: "ok", or what is amiss.
        self.components: Final[dict[str, Callable[[], str]]] = {}
        # How much of a journal is needed still.
        self.unfinished: Callable[[], int] = lambda: 0
        # When a stop in good order has to be over, by the clock.
        self.ends_s = float("inf")
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._postgres: Postgres | None = None
        self._clients: list[Redis] = []
        url = settings.redis_url
        # Only what lies in a file can change.
        watched = url is not None and url.file is not None
        self._credentials = RedisCredentials(url.get_secret_value()) if url and watched else None

    def trace(self) -> None:
        """Record spans from now on, where that is set, until all else has ended."""
        settings = self.settings
        # Where there are pods, a pod's name.
        instance = f"{socket.gethostname()}-{self.place.index}"
        tracing = open_tracing(settings, self.metrics.tracing, instance)
        if tracing is not None:
            self.tracing = tracing

            async def flush() -> None:
                await tracing.close(self.ends_s - self.clock.monotonic())

            self.connections.push_async_callback(flush)

    def stop(self) -> None:
        """Have loops end after their round, and note by when all has to be over."""
        self.ends_s = self.clock.monotonic() + self.settings.drain_grace_ms / 1000
        self._stop.set()

    async def end_loops(self) -> None:
        """Wait until every loop has ended."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def listen(
        self,
        addresses: tuple[str, ...],
        services: dict[str, Register],
        pushback_us: Callable[[], int | None] = _usual,
        *,
        reuse_port: bool = False,
        batched: BatchMethods | None = None,
    ) -> list[str]:
        """Serve gRPC there until the process stops; return where it is.

        `pushback_us` notes a call that is refused unread, and says when it may come back;
        `batched` are those of the methods that take calls in batches. With `reuse_port` other
        processes of the same group listen there too.
        """
        settings, told = self.settings, EdgeMetrics(self.metrics)
        edge = EdgeOptions(
            settings.default_deadline_ms / 1000,
            told,
            calls_max=settings.calls_max,
            calls_max_bytes=settings.calls_max_bytes,
            pushback_us=pushback_us,
            spans=CallSpans(self.tracing.tracer, told.call_recorded) if self.tracing else None,
        )
        # A Unix socket has no need of TLS, and its transport need not be able to.
        on_tcp = any(path_of(each) is None for each in addresses)
        credentials = self.secured.credentials if on_tcp else None
        options = ServerOptions(
            addresses,
            settings.message_max_bytes,
            edge,
            metadata_bytes_max=settings.metadata_max_bytes,
            streams_max=settings.streams_max,
            connection_age_s=settings.connection_age_ms / 1000,
            connection_idle_s=settings.connection_idle_ms / 1000,
            reuse_port=reuse_port,
            transport=TransportName(settings.transport),
            tls=credentials,
            knows_callers=self.secured.permits is not None,
            owner=self.secured.owner,
        )
        server = Server(options, services, batched)
        self.metrics.transport[server.transport].set(1)
        await server.start()
        self.stack.push_async_callback(server.stop, settings.drain_grace_ms / 1000)
        return server.addresses

    def secure(self) -> None:
        """Read certificates and rules for callers, and keep them up to date.

        Raises `CertificatesInvalid`, `IdentitiesInvalid` and `SocketGroupUnknown`.
        """
        self.secured = secured(self.settings, self.clock, self.metrics.security)
        if self.secured.kept:
            self.loop("certificates", self.secured.look, self.settings.tls_poll_ms)

    def redis(self, timeout_ms: int) -> Redis:
        """Return a client of its own for whoever asks."""
        url = self.settings.redis_url
        assert url is not None
        client = connect(url.get_secret_value(), timeout_ms, credentials=self._credentials)
        self.connections.push_async_callback(client.aclose)
        self._clients.append(client)
        return client

    def postgres(self) -> "Postgres":
        """Return the process's one pool."""
        # Whoever asks has imported its client already; a sidecar never does.
        from tallygate.adapters.postgres.pool import PoolOptions, Postgres  # noqa: PLC0415

        if self._postgres is None:
            settings = self.settings
            assert settings.postgres_dsn is not None
            self._postgres = Postgres(
                settings.postgres_dsn.get_secret_value(),
                PoolOptions(
                    connections_max=settings.postgres_pool_max,
                    connect_timeout_ms=settings.postgres_connect_timeout_ms,
                    statement_timeout_ms=settings.postgres_statement_timeout_ms,
                ),
                PoolMetrics(self.metrics),
            )
            self.connections.push_async_callback(self._postgres.close)
        return self._postgres

    def watch_secrets(self) -> None:
        """Have connections follow the files that hold their passwords."""
        settings, metrics = self.settings, self.metrics.access
        rotations = []
        if self._credentials is not None and settings.redis_url is not None:
            take = taking_redis(self._credentials, self._clients)
            rotations.append(Rotation("redis_url", settings.redis_url, take, metrics))
        dsn = settings.postgres_dsn
        if self._postgres is not None and dsn is not None and dsn.file is not None:
            rotations.append(Rotation("postgres_dsn", dsn, self._postgres.renew, metrics))
        for each in rotations:
            self.loop("secrets", each.run_once, LOOK_MS)

    def loop(self, name: str, function: Callable[[], Awaitable[object]], every_ms: int) -> None:
        """Run a function again and again, with so many ms between."""
        options = LoopOptions(idle_ms=every_ms)
        self.spawn(Loop(name, Step(function), self.clock, self.observer, options))

    def spawn(self, loop: Loop) -> None:
        """Run a loop until the process stops."""
        self._tasks.append(asyncio.create_task(loop.run(self._stop), name=loop.name))
