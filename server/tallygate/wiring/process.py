"""Puts a process together, role by role.

Guarantees: what starts is stopped in the opposite order, whatever fails in between; a process
starts while Redis or Postgres is away, and takes up its work when they come.
Refuses to know: the command line.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Final, Self

import structlog
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.prometheus.flows import (
    IngestMetrics,
    LoopMetrics,
    RelayMetrics,
    StreamMetrics,
)
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import AdmitMetrics, EdgeMetrics
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.posture import read_posture
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.adapters.source_id import source_id
from tallygate.api.edge import EdgeOptions
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions
from tallygate.api.ops_pages import Readiness
from tallygate.api.quota import QuotaServicer
from tallygate.api.server import Register, Server, ServerOptions
from tallygate.api.usage import UsageServicer
from tallygate.domain.errors import CatalogInvalid
from tallygate.flow.decide import DecideParts
from tallygate.flow.gather import Gather
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts, IngestWatch
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.gen.v1 import admin_pb2_grpc, quota_pb2_grpc, usage_pb2_grpc
from tallygate.ports import QuotaStore
from tallygate.settings import Settings
from tallygate.wiring.control import ControlBackends, control_of
from tallygate.wiring.leasing import settling
from tallygate.wiring.outage import Outages
from tallygate.wiring.relays import Relays
from tallygate.wiring.roles import Role, check_roles
from tallygate.wiring.serve import flows_of
from tallygate.wiring.steps import Step, ending
from tallygate.wiring.store import open_store
from tallygate.wiring.watching import POLL_MS

QUOTA: Final = "tallygate.v1.QuotaService"
USAGE: Final = "tallygate.v1.UsageService"
ADMIN: Final = "tallygate.v1.AdminService"

HEARTBEAT_MS: Final = 500
WATCH_MS: Final = 1_000
POSTURE_MS: Final = 15_000
PUBLISH_MS: Final = 250
DESTINATIONS_MS: Final = 2_000
# A stalled read must end some time after the block it asked for.
BLOCK_MARGIN_MS: Final = 2_000

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A process that is up: where it listens, its metrics, and whether it can answer yet."""

    metrics: Metrics
    ready: Callable[[], bool]
    grpc_addresses: list[str] = field(default_factory=list)
    control_addresses: list[str] = field(default_factory=list)
    ops_port: int = 0


@asynccontextmanager
async def running(settings: Settings, roles: frozenset[Role]) -> AsyncIterator[Running]:
    """Start a process with these roles; stop it, drained, on leaving.

    Raises `RoleUnmet`, `AddressInUse` and `LayoutDiffers`.
    """
    check_roles(settings, roles)
    async with _Process(settings) as process:
        await process.start(roles)
        yield process.running


class _Process:
    """Owns everything that has to be stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        metrics = Metrics(CollectorRegistry(), version=metadata.version("tallygate"))
        self.running = Running(metrics, lambda: self._readiness().ready)
        self._loops = LoopMetrics(metrics)
        self._heartbeat = Heartbeat()
        self._stop = asyncio.Event()
        self._stack = AsyncExitStack()
        self._connections = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._components: dict[str, Callable[[], str]] = {}
        self._postgres: Postgres | None = None
        self._ends_s = float("inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Servers first, so that nothing new comes; then loops; then connections."""
        self._components["process"] = lambda: "draining"
        self._ends_s = self._clock.monotonic() + self._settings.drain_grace_ms / 1000
        self._stop.set()
        async with self._connections, self._stack:
            pass

    async def start(self, roles: frozenset[Role]) -> None:
        """Start each role. What listens is started last, when there is something to answer with."""
        self._stack.push_async_callback(self._end_loops)
        starts: list[Callable[[], Awaitable[None]]] = []
        if Role.SERVE in roles:
            starts.append(await self._prepare_serve())
        if Role.INGEST in roles:
            self._start_ingest()
        if Role.RELAY in roles:
            self._start_relay()
        if Role.CONTROL in roles:
            starts.append(await self._prepare_control())
        self._start_heartbeat()
        services = [QUOTA, USAGE] if Role.SERVE in roles else []
        services += [ADMIN] if Role.CONTROL in roles else []
        ops = OpsListener(
            OpsOptions(
                address=self._settings.ops_address,
                registry=self.running.metrics.registry,
                readiness=self._readiness,
                heartbeat=self._heartbeat,
                stall_s=self._settings.loop_stall_ms / 1000,
                services=services,
                refused=self.running.metrics.ops_refused.inc,
            )
        )
        ops.start()
        self._stack.push_async_callback(asyncio.to_thread, ops.stop)
        self.running.ops_port = ops.port
        for start in starts:
            await start()
        for service in ("", *services):
            ops.set_serving(service, True)

    async def _prepare_serve(self) -> Callable[[], Awaitable[None]]:
        settings, metrics = self._settings, self.running.metrics
        client = self._redis(settings.redis_timeout_ms)
        outages = self._start_outages(await open_store(settings, client, metrics))
        view = outages.catalog(self._start_view())
        gather = self._start_gather(outages.breaker)
        posture = self._redis(settings.redis_timeout_ms)

        async def watch_posture() -> None:
            metrics.redis_posture.replace(await read_posture(posture))

        self._loop("posture", watch_posture, POSTURE_MS)
        parts = DecideParts(
            catalog=view,
            outage=outages.gate(gather),
            clock=self._clock,
            encoder=ProtobufEventEncoder(),
            observer=AdmitMetrics(metrics),
            shards=settings.shards,
        )
        flows = flows_of(parts, outages.breaker, settings, metrics)
        pace = LoopOptions(idle_ms=POLL_MS)
        self._spawn(Loop("watch", flows.watches, self._clock, self._loops, pace))
        if flows.leases is not None:
            end = settling(flows.leases, outages, self._clock, self._loops, lambda: self._ends_s)
            self._stack.push_async_callback(end)
        deadline_s = settings.default_deadline_ms / 1000
        services: dict[str, Register] = {
            QUOTA: lambda registry: quota_pb2_grpc.add_QuotaServiceServicer_to_server(
                QuotaServicer(flows, deadline_s),
                registry,  # type: ignore[arg-type]
            ),
            USAGE: lambda registry: usage_pb2_grpc.add_UsageServiceServicer_to_server(
                UsageServicer(flows.admit, deadline_s),
                registry,  # type: ignore[arg-type]
            ),
        }

        async def start() -> None:
            self.running.grpc_addresses = await self._listen(settings.grpc_address, services)

        return start

    def _start_view(self) -> FileCatalogView | RedisCatalogView:
        """Return the catalog as the sidecar holds it, kept up to date by a loop."""
        settings, metrics = self._settings, self.running.metrics
        view: FileCatalogView | RedisCatalogView
        if settings.catalog is not None and settings.postgres_dsn is None:
            view = FileCatalogView(settings.catalog)
        else:
            held = RedisCatalogView(self._redis(settings.redis_timeout_ms))
            self._connections.push_async_callback(held.close)
            metrics.catalog_tenants_held.set_function(lambda: held.tenants_held)
            metrics.catalog_reads_waiting.set_function(lambda: held.reads_waiting)
            view = held
        self._components["catalog"] = lambda: "ok" if view.version else "not loaded"
        confirmed_at = self._clock.monotonic()
        metrics.catalog_age.set_function(lambda: self._clock.monotonic() - confirmed_at)

        async def refresh() -> None:
            nonlocal confirmed_at
            try:
                await view.refresh()
            except CatalogInvalid as error:
                # Told once for each broken state of the file; the last good one stays in use.
                faults = [asdict(fault) for fault in error.faults]
                log.error("catalog_has_faults", faults=faults)  # noqa: TRY400  no trace is needed
                return
            confirmed_at = self._clock.monotonic()
            metrics.catalog_version.set(view.version)

        self._loop("catalog", refresh, min(settings.catalog_poll_ms, PUBLISH_MS))
        return view

    def _start_outages(self, store: QuotaStore) -> Outages:
        outages = Outages(self._settings, store, self._clock, self.running.metrics)
        for loop in outages.loops(self._loops):
            self._spawn(loop)
        self._stack.push_async_callback(outages.flush(lambda: self._ends_s))
        self._connections.push_async_callback(outages.breaker.close)
        return outages

    def _start_gather(self, store: QuotaStore) -> Gather:
        settings, metrics = self._settings, self.running.metrics
        gather = Gather(
            store,
            self._clock,
            queue_max=settings.admit_queue_max,
            batch_max=settings.admit_batch_max,
            refused=metrics.admit_queue_refused.inc,
        )
        metrics.admit_queue_depth.set_function(lambda: gather.depth)
        task = asyncio.create_task(gather.run(), name="gather")

        self._stack.push_async_callback(ending(gather.close, task))
        return gather

    def _start_ingest(self) -> None:
        settings, metrics = self._settings, self.running.metrics
        block_ms = settings.ingest_block_ms
        client = self._redis(block_ms + BLOCK_MARGIN_MS)
        ledger = PostgresLedger(self._opened_postgres())
        options = StreamOptions(settings.shards, consumer=source_id(settings.data_dir))
        stream = RedisUsageStream(client, options, StreamMetrics(metrics))
        parts = IngestParts(
            stream=stream,
            ledger=ledger,
            encoder=ProtobufEventEncoder(),
            clock=self._clock,
            observer=IngestMetrics(metrics),
        )
        pace = IngestOptions(
            events_max=settings.ingest_batch_max,
            block_ms=block_ms,
            claim_idle_ms=settings.ingest_claim_idle_ms,
        )
        # Its own connection, so that a figure never waits behind a blocking read.
        watched = replace(
            parts,
            stream=RedisUsageStream(self._redis(settings.redis_timeout_ms), options),
        )

        self._spawn(Loop("ingest", Ingest(parts, pace), self._clock, self._loops))
        self._spawn(
            Loop(
                "ingest_watch",
                IngestWatch(watched),
                self._clock,
                self._loops,
                LoopOptions(idle_ms=WATCH_MS),
            )
        )

    def _start_relay(self) -> None:
        postgres = self._opened_postgres()
        outbox, catalog = PostgresOutbox(postgres), PostgresCatalogStore(postgres)
        observer = RelayMetrics(self.running.metrics, self._clock)
        relays = Relays(self._settings, outbox, observer, self._clock, self._loops)
        # After the loops, which could start relays anew.
        self._connections.push_async_callback(relays.close)

        async def refresh() -> None:
            newest = await catalog.effective(self._clock.now_us())
            await relays.fit(newest.destinations)
            observer.measured(await outbox.depths())

        self._loop("destinations", refresh, DESTINATIONS_MS)

    async def _prepare_control(self) -> Callable[[], Awaitable[None]]:
        settings = self._settings
        client, metrics = self._redis(settings.redis_timeout_ms), self.running.metrics
        store = await open_store(settings, client, metrics)
        backends = ControlBackends(self._opened_postgres(), client, store, settings.shards)
        control = control_of(backends, metrics, self._loops)
        for loop in control.loops:
            self._spawn(loop)
        services: dict[str, Register] = {
            ADMIN: lambda registry: admin_pb2_grpc.add_AdminServiceServicer_to_server(
                control.servicer,
                registry,  # type: ignore[arg-type]
            )
        }

        async def start() -> None:
            addresses = (settings.control_address,)
            self.running.control_addresses = await self._listen(addresses, services)

        return start

    async def _listen(self, addresses: tuple[str, ...], services: dict[str, Register]) -> list[str]:
        settings = self._settings
        edge = EdgeOptions(settings.default_deadline_ms / 1000, EdgeMetrics(self.running.metrics))
        options = ServerOptions(
            addresses,
            settings.message_max_bytes,
            edge,
            metadata_bytes_max=settings.metadata_max_bytes,
            streams_max=settings.streams_max,
        )
        server = Server(options, services)
        await server.start()
        self._stack.push_async_callback(server.stop, settings.drain_grace_ms / 1000)
        return server.addresses

    def _redis(self, timeout_ms: int) -> Redis:
        url = self._settings.redis_url
        assert url is not None
        client = connect(url.get_secret_value(), timeout_ms)
        self._connections.push_async_callback(client.aclose)
        return client

    def _opened_postgres(self) -> Postgres:
        """Return the process's one pool."""
        if self._postgres is None:
            settings = self._settings
            assert settings.postgres_dsn is not None
            self._postgres = Postgres(
                settings.postgres_dsn.get_secret_value(),
                PoolOptions(
                    connections_max=settings.postgres_pool_max,
                    connect_timeout_ms=settings.postgres_connect_timeout_ms,
                    statement_timeout_ms=settings.postgres_statement_timeout_ms,
                ),
            )
            self._connections.push_async_callback(self._postgres.close)
        return self._postgres

    def _loop(self, name: str, function: Callable[[], Awaitable[object]], every_ms: int) -> None:
        options = LoopOptions(idle_ms=every_ms)
        self._spawn(Loop(name, Step(function), self._clock, self._loops, options))

    def _spawn(self, loop: Loop) -> None:
        self._tasks.append(asyncio.create_task(loop.run(self._stop), name=loop.name))

    async def _end_loops(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def _start_heartbeat(self) -> None:
        """Beat until all else has ended: a process that drains for long is not a stalled one."""

        async def beat() -> None:
            self._heartbeat.beat()

        ended = asyncio.Event()
        pace = LoopOptions(idle_ms=HEARTBEAT_MS)
        loop = Loop("heartbeat", Step(beat), self._clock, self._loops, pace)
        task = asyncio.create_task(loop.run(ended), name=loop.name)

        self._connections.push_async_callback(ending(ended.set, task))

    def _readiness(self) -> Readiness:
        states = {name: state() for name, state in self._components.items()}
        return Readiness(all(state == "ok" for state in states.values()), states)
