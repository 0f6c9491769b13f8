"""The role `serve`: what stands between callers and Redis.

Guarantees: it starts while Redis is away; what it was told to count is handed over at its end.
Refuses to know: other roles.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import structlog

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.prometheus.observers import AdmitMetrics
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.posture import read_posture
from tallygate.adapters.redis.stream_lengths import stream_lengths
from tallygate.api.batched import BatchMethods
from tallygate.api.calls import methods_of
from tallygate.api.edge import Registry
from tallygate.api.guarded import GuardedRegistry
from tallygate.api.leased import LeasedCalls
from tallygate.api.quota import QuotaFlows, QuotaServicer
from tallygate.api.server import Register
from tallygate.api.usage import UsageServicer
from tallygate.domain.errors import CatalogInvalid
from tallygate.flow.decide import DecideParts
from tallygate.flow.gather import Gather
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.traced import TracedPipeline, TracedStore
from tallygate.gen.v1 import quota_pb2_grpc, usage_pb2_grpc
from tallygate.ports import QuotaStore
from tallygate.ports.journal import Journal
from tallygate.wiring.envoy import envoy_services
from tallygate.wiring.host import Host, Running
from tallygate.wiring.journaling import Serving, durable_of, open_sidecar_journal, take_up
from tallygate.wiring.leasing import settling
from tallygate.wiring.outage import Outages
from tallygate.wiring.serve import flows_of
from tallygate.wiring.steps import ending
from tallygate.wiring.store import open_store
from tallygate.wiring.watching import POLL_MS

QUOTA: Final = "tallygate.v1.QuotaService"
USAGE: Final = "tallygate.v1.UsageService"

POSTURE_MS: Final = 15_000
CATALOG_MS: Final = 250
# Without a Redis that answers it listens all the same, and what it holds decides.
CATALOG_FIRST_S: Final = 2.0

log = structlog.get_logger(__name__)


async def prepare_serve(host: Host, running: Running) -> Callable[[], Awaitable[None]]:
    """Put the data plane together; return what has it listen."""
    settings, metrics = host.settings, host.metrics
    client = host.redis(settings.redis_timeout_ms)
    journal = await open_sidecar_journal(host)
    store = await open_store(settings, client, metrics)
    tracer = host.tracing.tracer if host.tracing is not None else None
    traced = store if tracer is None else TracedPipeline(store, tracer)
    outages = _start_outages(host, traced, journal)
    held, looked = _start_view(host)
    view = outages.catalog(held)
    door = outages.door if tracer is None else TracedStore(outages.door, tracer)
    gather = _start_gather(host, door)
    gate = outages.gate(gather, host.place)
    posture = host.redis(settings.redis_timeout_ms)

    async def watch_posture() -> None:
        metrics.redis_posture.replace(await read_posture(posture))

    host.loop("posture", watch_posture, POSTURE_MS)
    parts = DecideParts(
        catalog=view,
        outage=gate,
        clock=host.clock,
        encoder=ProtobufEventEncoder(),
        observer=AdmitMetrics(metrics),
        shards=settings.shards,
        durable=durable_of(host, journal),
        trace=host.tracing.carried if host.tracing is not None else None,
    )
    if journal is not None:
        await take_up(journal, Serving(store, outages, gate, view), host)
    flows = flows_of(parts, outages.breaker, settings, metrics, journal)
    pace = LoopOptions(idle_ms=POLL_MS)
    host.spawn(Loop("watch", flows.watches, host.clock, host.observer, pace))
    if flows.leases is not None:
        end = settling(flows.leases, outages, host.clock, host.observer, lambda: host.ends_s)
        host.stack.push_async_callback(end)
    services, batched = _served(host, flows)
    for_envoy = envoy_services(host, flows.admit, view) if settings.envoy_address else {}

    async def start() -> None:
        # Who calls as soon as we listen is answered, and not told to come back.
        with suppress(TimeoutError):
            async with asyncio.timeout(CATALOG_FIRST_S):
                await looked.wait()
        running.grpc_addresses = await host.listen(
            settings.grpc_address,
            services,
            pushback_us=gather.refuse,
            reuse_port=host.place.shares_port,
            batched=batched,
        )
        if for_envoy:
            running.envoy_addresses = await host.listen(
                settings.envoy_address,
                for_envoy,
                pushback_us=gather.refuse,
                reuse_port=host.place.shares_port,
            )

    return start


def _served(host: Host, flows: QuotaFlows) -> tuple[dict[str, Register], BatchMethods | None]:
    """Return the services over these flows, and those of their methods that take batches.

    Where there are rules for callers, they stand around each method, and none takes batches.
    """
    deadline_s = host.settings.default_deadline_ms / 1000
    permits = host.secured.permits
    batched = methods_of(flows.admit, LeasedCalls(flows.leases) if flows.leases else None)

    def guarded(registry: Registry) -> Any:  # noqa: ANN401  they ask of a server what it has
        if permits is None:
            return registry
        return GuardedRegistry(registry, permits, deadline_s, batched)

    services: dict[str, Register] = {
        QUOTA: lambda registry: quota_pb2_grpc.add_QuotaServiceServicer_to_server(
            QuotaServicer(flows, deadline_s),  # type: ignore[abstract]  # the rest is in `calls`
            guarded(registry),
        ),
        USAGE: lambda registry: usage_pb2_grpc.add_UsageServiceServicer_to_server(
            UsageServicer(flows.admit, deadline_s),  # type: ignore[abstract]
            guarded(registry),
        ),
    }
    return services, batched if permits is None else None


def _start_view(host: Host) -> tuple[FileCatalogView | RedisCatalogView, asyncio.Event]:
    """Return the catalog as the sidecar holds it, kept up to date by a loop.

    The event says that it has been read, or could not be, for the first time.
    """
    looked = asyncio.Event()
    settings, metrics = host.settings, host.metrics
    view: FileCatalogView | RedisCatalogView
    if settings.catalog is not None and settings.postgres_dsn is None:
        view = FileCatalogView(settings.catalog)
    else:
        held = RedisCatalogView(host.redis(settings.redis_timeout_ms))
        host.connections.push_async_callback(held.close)
        metrics.catalog_tenants_held.set_function(lambda: held.tenants_held)
        metrics.catalog_reads_waiting.set_function(lambda: held.reads_waiting)
        view = held
    host.components["catalog"] = lambda: "ok" if view.version else "not loaded"
    confirmed_at = host.clock.monotonic()
    metrics.catalog_age.set_function(lambda: host.clock.monotonic() - confirmed_at)

    async def refresh() -> None:
        nonlocal confirmed_at
        try:
            await view.refresh()
        except CatalogInvalid as error:
            # Told once for each broken state of the file; the last good one stays in use.
            faults = [asdict(fault) for fault in error.faults]
            log.error("catalog_has_faults", faults=faults)  # noqa: TRY400  no trace is needed
            return
        finally:
            looked.set()
        confirmed_at = host.clock.monotonic()
        metrics.catalog_version.set(view.version)

    host.loop("catalog", refresh, min(settings.catalog_poll_ms, CATALOG_MS))
    return view, looked


def _start_outages(host: Host, store: QuotaStore, journal: Journal | None) -> Outages:
    settings, lengths = host.settings, None
    # Without a ledger nothing would ever make room again.
    if settings.counter_rebuild == "ledger":
        client = host.redis(settings.redis_timeout_ms)
        lengths = partial(stream_lengths, client, settings.shards)
    outages = Outages(settings, store, host.clock, host.metrics, journal, lengths=lengths)
    for loop in outages.loops(host.observer):
        host.spawn(loop)
    host.stack.push_async_callback(outages.flush(lambda: host.ends_s))
    host.connections.push_async_callback(outages.breaker.close)
    return outages


def _start_gather(host: Host, store: QuotaStore) -> Gather:
    settings, metrics = host.settings, host.metrics
    gather = Gather(
        store,
        host.clock,
        queue_max=settings.admit_queue_max,
        batch_max=settings.admit_batch_max,
        refused=metrics.admit_queue_refused.inc,
    )
    metrics.admit_queue_depth.set_function(lambda: gather.depth)
    task = asyncio.create_task(gather.run(), name="gather")

    host.stack.push_async_callback(ending(gather.close, task))
    return gather
