"""A server of every kind of method, each doing what a test asks, on any transport.

Guarantees: edge and transport are what is shipped, bounds included; `CheckAndConsume` takes calls
in batches, all others one by one.
Refuses to know Redis, and which transport it runs on.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from tallygate.api.batched import Answering, Call
from tallygate.api.edge import EdgeOptions
from tallygate.api.server import Server, ServerOptions
from tallygate.api.status import MalformedMessage
from tallygate.api.traced import CallSpans
from tallygate.api.transport import TransportName
from tallygate.domain.errors import BackendUnavailable, InvalidField, UnknownTenant
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tallygate.ports.tracing import here
from tests.sidecar import MESSAGE_BYTES_MAX, QUOTA, USAGE

CONSUME = f"{QUOTA}/CheckAndConsume"
Context = grpc.aio.ServicerContext[Any, Any]
ERRORS = {
    "invalid": InvalidField("it is invalid", field="tenant_id"),
    "unknown": UnknownTenant("it is not known", field="tenant_id"),
    "away": BackendUnavailable(retry_after_us=1_234_000),
    "bug": ValueError("hunter2"),
}


class Told:
    """Keeps what the edge tells."""

    def __init__(self) -> None:
        self.inside = 0
        self.shed = 0
        self.codes: Counter[tuple[str, str]] = Counter()

    def calls_started(self, calls: int) -> None:
        """Count it in."""
        self.inside += calls

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Count it out."""
        assert min(seconds) >= 0
        self.inside -= len(seconds)
        self.codes[method.rpartition("/")[2], code] += len(seconds)

    def call_shed(self) -> None:
        """Count it."""
        self.shed += 1


@dataclass(slots=True)
class Batches:
    """Takes batches: tenant `hold` waits until it is let, those of `ERRORS` fail, others pass."""

    sizes: list[int] = field(default_factory=list)
    held: list[tuple[int, Answering]] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    # Where each batch's calls are in a trace.
    places: list[bytes] = field(default_factory=list)
    reply: bytes = quota_pb2.CheckAndConsumeResponse(allowed=True).SerializeToString()

    def take(self, calls: Sequence[Call], answering: Answering) -> None:
        """Answer each, or hold it."""
        self.sizes.append(len(calls))
        self.places.append(here())
        for number, data, ends_at in calls:
            try:
                request = quota_pb2.CheckAndConsumeRequest.FromString(data)
            except Exception:  # noqa: BLE001  whatever it is, it is no message
                answering.fail(number, MalformedMessage())
                continue
            self.ends[request.operation_id] = ends_at - asyncio.get_running_loop().time()
            if request.tenant_id == "raise":
                raise RuntimeError("hunter2")
            if request.tenant_id in ERRORS:
                answering.fail(number, ERRORS[request.tenant_id])
            elif request.tenant_id == "hold":
                self.held.append((number, answering))
            else:
                answering.respond(number, self.reply)

    def let(self) -> None:
        """Answer what is held."""
        for number, answering in self.held:
            answering.respond(number, self.reply)
        self.held.clear()


@dataclass(slots=True)
class Quota(quota_pb2_grpc.QuotaServiceServicer):
    """Unary one by one, and a stream."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    cancelled: int = 0
    written: int = 0
    peers: set[str] = field(default_factory=set)
    remaining: list[float | None] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)

    async def GetQuota(  # noqa: N802  the name is the proto's
        self, request: quota_pb2.GetQuotaRequest, context: Context
    ) -> quota_pb2.GetQuotaResponse:
        """Answer, fail or hold, as the tenant says."""
        self.peers.add(context.peer())
        self.places.append(here())
        self.remaining.append(context.time_remaining())
        if request.tenant_id in ERRORS:
            raise ERRORS[request.tenant_id]
        if request.tenant_id == "hold":
            self.begun += 1
            try:
                await self.let.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return quota_pb2.GetQuotaResponse(plan="x" * sum(map(len, request.meters)))

    async def WatchQuota(  # noqa: N802
        self, request: quota_pb2.WatchQuotaRequest, context: Context
    ) -> AsyncGenerator[quota_pb2.WatchQuotaResponse, None]:
        """Send three messages and end; or fail after them; or send on and on; or hold."""
        self.begun += 1
        many = 1_000_000 if request.tenant_id == "flood" else 3
        try:
            for number in range(many):
                plan = "x" * 100_000 if request.tenant_id == "flood" else str(number)
                yield quota_pb2.WatchQuotaResponse(plan=plan)
                self.written += 1
            if request.tenant_id in ERRORS:
                raise ERRORS[request.tenant_id]
            if request.tenant_id == "hold":
                await self.let.wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise


class Usage(usage_pb2_grpc.UsageServiceServicer):
    """A stream both ways."""

    async def StreamRecordUsage(  # noqa: N802
        self, requests: AsyncIterator[usage_pb2.StreamRecordUsageRequest], context: Context
    ) -> AsyncGenerator[usage_pb2.StreamRecordUsageResponse, None]:
        """Answer each message with as many results."""
        async for request in requests:
            results = [usage_pb2.BatchRecordUsageResult() for _ in request.requests]
            yield usage_pb2.StreamRecordUsageResponse(results=results)


@dataclass(slots=True)
class World:
    """The server and what it told."""

    server: Server
    quota: Quota
    batches: Batches
    told: Told

    @property
    def address(self) -> str:
        """Where it listens first."""
        return self.server.addresses[0]


@asynccontextmanager
async def world(
    transport: TransportName,
    *addresses: str,
    default_deadline_s: float = 30.0,
    calls_max: int = 1_000,
    spans: CallSpans | None = None,
    **options: Any,  # of ServerOptions, by name
) -> AsyncIterator[World]:
    """Serve until the block is over."""
    # The other methods are nobody's affair here.
    quota, usage = Quota(), Usage()  # type: ignore[abstract]
    batches, told = Batches(), Told()
    server = Server(
        ServerOptions(
            addresses or ("127.0.0.1:0",),
            options.pop("message_bytes_max", MESSAGE_BYTES_MAX),
            EdgeOptions(default_deadline_s, told, calls_max=calls_max, spans=spans),
            transport=transport,
            **options,
        ),
        {
            QUOTA: partial(quota_pb2_grpc.add_QuotaServiceServicer_to_server, quota),
            USAGE: partial(usage_pb2_grpc.add_UsageServiceServicer_to_server, usage),
        },
        {CONSUME: batches.take},
    )
    await server.start()
    try:
        yield World(server, quota, batches, told)
    finally:
        quota.let.set()
        batches.let()
        await server.stop(2.0)
