"""Calls as spans, on each transport: begun from the caller's header, ended with its status."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import EdgeMetrics
from tallygate.api.traced import CallSpans, caller_of, code_name
from tallygate.api.transport import TransportName
from tallygate.domain.trace import NOWHERE, header_of, place, trace_id
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tallygate.ports.tracing import Kind
from tallygate.testing.tracing import FakeSpan, FakeTracer
from tests.servers import eventually
from tests.sidecar import QUOTA, channel
from tests.transport.conftest import transport
from tests.transport.world import World, world

__all__ = ["transport"]

CALLER = place(0xABC, 0xDEF)
HEADER = (("traceparent", header_of(CALLER)),)
UNRECORDED = (("traceparent", header_of(place(0xABC, 0xDEF, sampled=False))),)


@dataclass(slots=True)
class Traced:
    """A server whose calls are recorded, and what was recorded."""

    world: World
    tracer: FakeTracer
    recorded: list[tuple[str, str, str]] = field(default_factory=list)

    async def ask(self, method: str, tenant: str = "acme", *headers: Any, **options: Any) -> None:
        """Make a call of a method."""
        async with channel(self.world.address) as opened:
            stub = quota_pb2_grpc.QuotaServiceStub(opened)
            metadata = headers or HEADER
            if method == "CheckAndConsume":
                asked = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant)
                await stub.CheckAndConsume(asked, metadata=metadata, **options)
            elif method == "GetQuota":
                read = quota_pb2.GetQuotaRequest(tenant_id=tenant)
                await stub.GetQuota(read, metadata=metadata, **options)
            else:
                watched = quota_pb2.WatchQuotaRequest(tenant_id=tenant)
                stream = stub.WatchQuota(watched, metadata=metadata, **options)
                assert [each.plan async for each in stream] == ["0", "1", "2"]

    async def span(self, ended: int = 1) -> FakeSpan:
        """Return the newest span once so many have ended."""

        def all_ended() -> bool:
            return sum(each.ended for each in self.tracer.spans) == ended

        await eventually(all_ended, 10.0, what="ended spans")
        return self.tracer.spans[-1]


@pytest.fixture
async def it(transport: TransportName) -> AsyncIterator[Traced]:
    """A server that records only what its callers record."""
    tracer = FakeTracer(roots=False)
    recorded: list[tuple[str, str, str]] = []

    def note(method: str, code: str, seconds: float, trace: str) -> None:
        assert seconds >= 0
        recorded.append((method, code, trace))

    async with world(transport, spans=CallSpans(tracer, note)) as found:
        yield Traced(found, tracer, recorded)


every_kind = pytest.mark.parametrize("method", ["CheckAndConsume", "GetQuota", "WatchQuota"])


@every_kind
async def test_a_call_is_a_span_below_its_caller(it: Traced, method: str) -> None:
    """Of kind server, in the caller's trace, with the method and the status; its work knows it."""
    await it.ask(method)
    span = await it.span()
    name = f"{QUOTA}/{method}"
    assert (span.name, span.kind, span.parent) == (name, Kind.SERVER, CALLER)
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": name,
        "rpc.response.status_code": "OK",
    }
    assert it.recorded == [(name, "OK", trace_id(CALLER))]
    if method != "WatchQuota":
        assert [*it.world.batches.places, *it.world.quota.places] == [span.place]


@every_kind
@pytest.mark.parametrize(
    ("tenant", "code", "failed"),
    [("unknown", "NOT_FOUND", False), ("away", "UNAVAILABLE", True), ("bug", "INTERNAL", True)],
)
async def test_a_span_ends_with_the_status(
    it: Traced, method: str, tenant: str, code: str, failed: bool
) -> None:
    """A status that says that the service failed ends it as an error, the caller's fault not."""
    with pytest.raises(grpc.aio.AioRpcError):
        await it.ask(method, tenant)
    span = await it.span()
    assert span.attributes["rpc.response.status_code"] == code
    assert span.error == (code if failed else "")


@pytest.mark.parametrize("method", ["CheckAndConsume", "GetQuota"])
async def test_calls_that_are_given_up_end_their_spans(it: Traced, method: str) -> None:
    """A caller that goes away, and one whose time is over, leave no span open."""
    asking = asyncio.create_task(it.ask(method, "hold"))
    await eventually(lambda: len(it.tracer.spans) == 1, 10.0, what="a span")
    asking.cancel()
    assert (await it.span()).attributes["rpc.response.status_code"] == "CANCELLED"
    with pytest.raises(grpc.aio.AioRpcError):
        await it.ask(method, "hold", timeout=0.1)
    span = await it.span(2)
    assert span.attributes["rpc.response.status_code"] in ("DEADLINE_EXCEEDED", "CANCELLED")


async def test_unrecorded_calls_leave_nothing(it: Traced) -> None:
    """A caller that does not record, one without a header and one whose header is broken."""
    broken = (("traceparent", "00-broken"),)
    for headers in (UNRECORDED, (("x-other", "1"),), broken):
        for method in ("CheckAndConsume", "GetQuota"):
            await it.ask(method, "acme", *headers)
    assert it.tracer.spans == []
    assert {*it.world.batches.places, *it.world.quota.places} == {NOWHERE}


def test_a_header_counts_only_if_there_is_one() -> None:
    """Two say nothing, as nobody knows which is right; other names and bytes say nothing either."""
    assert caller_of(HEADER) == CALLER
    assert caller_of(HEADER + HEADER) == NOWHERE
    assert caller_of((("traceparent-bin", b"x"), ("tracestate", "a=b"))) == NOWHERE
    assert caller_of((("traceparent", b"x"),)) == NOWHERE


def test_every_status_has_its_name() -> None:
    """A number, and one of grpcio's own, become the same name; anything else is unknown."""
    for code in grpc.StatusCode:
        assert code_name(code) == code_name(code.value[0]) == code.name
    assert code_name(None) == code_name(99) == "UNKNOWN"


def test_what_is_recorded_becomes_an_exemplar() -> None:
    """What `CallSpans` tells of a call is what the metrics take, down to the trace's id."""
    metrics = Metrics(CollectorRegistry(), version="1")
    told = EdgeMetrics(metrics)
    told.calls_ended("m", "OK", (0.1,))
    spans = CallSpans(FakeTracer(), told.call_recorded)
    span = spans.begin("m", HEADER)
    assert span is not None
    spans.end(span, "m", "OK", 0.1)
    samples = [each for family in metrics.registry.collect() for each in family.samples]
    (exemplar,) = [each.exemplar for each in samples if each.exemplar is not None]
    assert exemplar.labels == {"trace_id": trace_id(CALLER)}
