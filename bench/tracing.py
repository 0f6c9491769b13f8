"""What tracing costs: CPU per call with it off, on but not recorded, and recorded.

Run as `python -m bench.tracing`, one minute; with `--spans`, some seconds. First the parts by
themselves, without servers: looking at a call, and a recorded call's spans down to the bytes that
are sent. Then four sidecars in this process, one per way, over one Redis; their callers are in it
too, so that what counts is the difference from `off`. Rounds take turns; the collector is a process
of its own.
"""

import asyncio
import gzip
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.prometheus.tracing import TracingMetrics
from tallygate.adapters.tracing.sending import Collector, SpanQueue, tracer_of
from tallygate.adapters.tracing.spans import OtelTracer
from tallygate.api.traced import CallSpans
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tallygate.ports.tracing import Kind, here, working_for
from tallygate.settings_sources import load_settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs

CALLS: Final = 320
CALLERS: Final = 32
ROUNDS: Final = 3
COLLECTOR: Final = (
    "import sys; from tests.tracing.collector import collecting\n"
    "with collecting() as it:\n"
    "    print(it.address, flush=True); sys.stdin.read()\n"
)
RECORDED: Final = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
WAYS: Final[Mapping[str, tuple[dict[str, Any], tuple[tuple[str, str], ...]]]] = {
    "off": ({}, ()),
    "on, none recorded": ({"tracing_ratio": 0}, ()),
    "on, a hundredth recorded": ({"tracing_ratio": 0.01}, ()),
    "on, all recorded": ({"tracing_ratio": 0}, RECORDED),
}
_NUMBERS: Final = count(1)


@contextmanager
def collector() -> Iterator[str]:
    """Run a collector beside; give its address."""
    with subprocess.Popen(
        [sys.executable, "-c", COLLECTOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        assert child.stdin is not None
        child.stdin.close()


async def round_of(
    stub: "quota_pb2_grpc.QuotaServiceAsyncStub", headers: tuple[tuple[str, str], ...]
) -> float:
    """Return CPU per call, in µs, with many callers at once."""

    async def caller() -> None:
        for _ in range(CALLS // CALLERS):
            request = quota_pb2.CheckAndConsumeRequest(
                tenant_id="acme",
                operation_id=f"call-{next(_NUMBERS)}",
                items=[quota_pb2.Item(meter="requests", amount=1)],
            )
            await stub.CheckAndConsume(request, metadata=headers)

    cpu_s = time.process_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.process_time() - cpu_s) / (CALLS // CALLERS * CALLERS) * 1e6


def parts() -> None:
    """Measure and print what a call costs in spans by themselves."""
    taken: list[int] = []
    exporter = EncodingExporter(taken)
    queue = SpanQueue(Collector("", False), TracingMetrics(CollectorRegistry()), 10**6, exporter.of)
    tracer = OtelTracer(tracer_of(queue, "bench", "0"), 0.0, 10**9)
    spans = CallSpans(tracer, lambda *_: None)
    usual = (("user-agent", "grpc-python/1"), ("x-request-id", "a"))

    def looked_at() -> None:
        assert spans.begin("m", usual) is None

    def recorded() -> None:
        """As a call in a batch of its own: three spans."""
        span = spans.begin("m", (*usual, *RECORDED))
        assert span is not None
        with working_for(span):
            for kind in (Kind.INTERNAL, Kind.CLIENT):
                inner = tracer.begin("inner", kind, here(), {"a": 1, "b": "c"})
                assert inner is not None
                inner.end()
        spans.end(span, "m", "OK", 0.001)

    for name, work, calls in (
        ("on, none recorded: looking", looked_at, 100_000),
        ("on, recorded: three spans, sent", recorded, 5_000),
    ):
        work()
        cpu_s = time.process_time()
        for _ in range(calls):
            work()
        if work is recorded:
            queue.close(60.0)
        print(f"{name:<34} {(time.process_time() - cpu_s) / calls * 1e6:7.2f} µs of CPU per call")
    print(f"{'bytes to the collector':<34} {sum(taken) / 5_000:7.0f} per recorded call")


class EncodingExporter(SpanExporter):
    """Does what an exporter does but for the network."""

    def __init__(self, taken: list[int]) -> None:
        self._taken = taken

    def of(self, _: Collector) -> SpanExporter:
        """Return itself."""
        return self

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode and compress."""
        self._taken.append(len(gzip.compress(encode_spans(spans).SerializeToString())))
        return SpanExportResult.SUCCESS


async def main() -> None:
    """Measure and print."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = await stack.enter_async_context(EmbeddedRedis(folder / "redis"))
        catalog = catalogs.write(folder, catalogs.limited(10**9))
        endpoint = f"http://{stack.enter_context(collector())}"
        stubs: dict[str, Any] = {}
        for number, (name, (settings, _)) in enumerate(WAYS.items()):
            on = {"tracing": "otlp", "tracing_endpoint": endpoint, **settings} if settings else {}
            given = load_settings(
                {
                    "grpc_address": "127.0.0.1:0",
                    "ops_address": "127.0.0.1:0",
                    "transport": "grpcio",
                    "redis_url": redis.url,
                    "counter_rebuild": "none",
                    "catalog": catalog,
                    "data_dir": folder / str(number),
                    "tracing_calls_per_s_max": 100_000,
                    # However busy the machine: no call is refused for being late.
                    "default_deadline_ms": 60_000,
                    "redis_timeout_ms": 60_000,
                    "breaker_hang_ms": 60_000,
                    **on,
                },
                environ={},
            )
            process = await stack.enter_async_context(running(given, frozenset({Role.SERVE})))
            opened = grpc.aio.insecure_channel(process.grpc_addresses[0])
            stubs[name] = quota_pb2_grpc.QuotaServiceStub(await stack.enter_async_context(opened))
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for turn in range(ROUNDS + 1):
            for name, (_, headers) in WAYS.items():
                took_us = await round_of(stubs[name], headers)
                if turn:
                    found[name].append(took_us)
    off = statistics.median(found["off"])
    for name, rounds in found.items():
        took = statistics.median(rounds)
        print(f"{name:<28} {took:7.1f} µs of CPU per call, {took - off:+7.1f}")


if __name__ == "__main__":
    parts()
    if "--spans" not in sys.argv:
        asyncio.run(main())
