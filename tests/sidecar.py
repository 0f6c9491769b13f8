"""A sidecar inside a test: the real server, admit, gather and Redis store over a small catalog.

Guarantees: everything between the channel and Redis is what is shipped.
Refuses to know how catalogs are stored.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import grpc
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.prometheus.flows import LoopMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.api.calls import methods_of
from tallygate.api.edge import EdgeOptions
from tallygate.api.leased import LeasedCalls
from tallygate.api.quota import QuotaServicer
from tallygate.api.server import Server, ServerOptions
from tallygate.api.usage import UsageServicer
from tallygate.domain.ids import SourceId
from tallygate.flow.decide import DecideParts
from tallygate.flow.gather import Gather
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2_grpc
from tallygate.ports import CatalogView, QuotaStore
from tallygate.settings import Settings
from tallygate.wiring.outage import Outages
from tallygate.wiring.serve import flows_of
from tallygate.wiring.watching import POLL_MS
from tests.builders import SHARDS
from tests.transports import TRANSPORT

QUOTA = "tallygate.v1.QuotaService"
USAGE = "tallygate.v1.UsageService"
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
GRACE_S = 1.0
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "3s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a test may set of a sidecar."""

    source: str = "a"
    queue_max: int = 20_000
    batch_max: int = 256
    default_deadline_s: float = 10.0
    redis_timeout_ms: int = 5_000
    # As long as its calls wait, so that slow machines have no outages that no test is about.
    hang_ms: int = 10_000
    backlog_max: int = 100_000
    stale_ms: int = 5_000


class SilentEdge:
    """Hears nothing of calls and decisions."""

    def calls_started(self, calls: int) -> None:
        """Ignore it."""

    def call_shed(self) -> None:
        """Ignore it."""

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Ignore it."""

    def decided(self, outcome: str) -> None:
        """Ignore it."""

    def accepted(self, events: int) -> None:
        """Ignore it."""


@asynccontextmanager
async def serving(store: QuotaStore, view: CatalogView, tuning: Tuning) -> AsyncIterator[str]:
    """Serve over a store; give the address."""
    silent, clock = SilentEdge(), SystemClock()
    metrics = Metrics(CollectorRegistry(), version="test")
    settings = Settings(
        breaker_hang_ms=tuning.hang_ms,
        outage_backlog_max=tuning.backlog_max,
        watch_stale_ms=tuning.stale_ms,
    )
    outages = Outages(settings, store, clock, metrics)
    gather = Gather(outages.breaker, clock, queue_max=tuning.queue_max, batch_max=tuning.batch_max)
    gate = outages.gate(gather)
    parts = DecideParts(view, gate, clock, ProtobufEventEncoder(), silent, SHARDS)
    flows = flows_of(parts, outages.breaker, settings, metrics)
    deadline_s = tuning.default_deadline_s
    # What they lack is among the methods that take calls in batches.
    quota = QuotaServicer(flows, deadline_s)  # type: ignore[abstract]
    usage = UsageServicer(flows.admit, deadline_s)  # type: ignore[abstract]
    server = Server(
        ServerOptions(
            ["127.0.0.1:0"], MESSAGE_BYTES_MAX, EdgeOptions(deadline_s, silent), transport=TRANSPORT
        ),
        {
            QUOTA: partial(quota_pb2_grpc.add_QuotaServiceServicer_to_server, quota),
            USAGE: partial(usage_pb2_grpc.add_UsageServiceServicer_to_server, usage),
        },
        methods_of(flows.admit, LeasedCalls(flows.leases) if flows.leases else None),
    )
    running = asyncio.create_task(gather.run())
    stop = asyncio.Event()
    told = LoopMetrics(metrics)
    watching = Loop("watch", flows.watches, clock, told, LoopOptions(idle_ms=POLL_MS))
    loops = [asyncio.create_task(each.run(stop)) for each in [watching, *outages.loops(told)]]
    await server.start()
    try:
        yield server.addresses[0]
    finally:
        await server.stop(GRACE_S)
        gather.close()
        await running
        stop.set()
        await asyncio.gather(*loops)
        await outages.breaker.close()


@asynccontextmanager
async def sidecar(
    url: str,
    view: CatalogView,
    tuning: Tuning | None = None,
    now_us: Callable[[], int] = lambda: 0,
) -> AsyncIterator[str]:
    """Serve over a Redis; give the address. `now_us` is the store's time, 0 for Redis' own."""
    tuned = tuning or Tuning()
    client = connect(url, tuned.redis_timeout_ms)
    store = RedisQuotaStore(
        client, StoreOptions(SourceId(tuned.source), SHARDS, 900_000, now_us=now_us)
    )
    try:
        await store.open()
        async with serving(store, view, tuned) as address:
            yield address
    finally:
        await client.aclose()


@asynccontextmanager
async def channel(address: str, *, retries: bool = False) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with a connection of its own, which retries by itself only where asked to.

    Then it does what `docs/overload.md` asks of callers, by gRPC's own means.
    """
    own = ("grpc.use_local_subchannel_pool", 1)
    asked = ("grpc.service_config", RETRIES) if retries else ("grpc.enable_retries", 0)
    options = [own, asked]
    async with grpc.aio.insecure_channel(address, options=options) as opened:
        yield opened


def charge(
    operation_id: str = "", *amounts: int, tenant: str = "acme", meter: str = "requests"
) -> quota_pb2.CheckAndConsumeRequest:
    """Return a request to charge one item per amount, one of 1 where none is given."""
    return quota_pb2.CheckAndConsumeRequest(
        tenant_id=tenant,
        operation_id=operation_id,
        items=[quota_pb2.Item(meter=meter, amount=amount) for amount in amounts or (1,)],
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call failed, as its status and details say."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: Sequence[str]
    retry_us: int | None
    pushback_ms: str | None
    reference: str

    @property
    def comes_back(self) -> bool:
        """Whether it says the same twice: to come back after about 200 ms, each at another time."""
        usual = self.retry_us is not None and 100_000 <= self.retry_us <= 300_000
        return usual and self.pushback_ms == str((self.retry_us or 0) // 1000)


async def failure(call: Awaitable[object]) -> Failure:
    """Return how the call failed. Every failure must say its reason in an ErrorInfo."""
    error = await refused(call)
    trailers = dict(error.trailing_metadata() or ())
    details = trailers["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = {
        message.DESCRIPTOR.name
        for message in (info, bad, retry)
        for detail in status.details
        if detail.Unpack(message)
    }
    assert "ErrorInfo" in found
    assert info.domain == "tallygate"
    assert (status.code, status.message) == (error.code().value[0], error.details())
    pushback = trailers.get("grpc-retry-pushback-ms")
    return Failure(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        fields=[violation.field for violation in bad.field_violations],
        retry_us=retry.retry_delay.ToMicroseconds() if "RetryInfo" in found else None,
        pushback_ms=str(pushback) if pushback is not None else None,
        reference=info.metadata.get("reference", ""),
    )


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Return the error that the call ends with."""
    try:
        reply = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"the call was answered: {reply}")
