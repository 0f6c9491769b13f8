"""`python -m bench.leases`: decisions from leases beside decisions by Redis, in one run.

In process: the flow alone, over a real Redis. Over gRPC: the sidecar, beside an empty handler.
Guarantees: every ratio is of two figures of this run; that calls were leased is read from the
sidecar's own counters.
Refuses to know: budgets.
"""

import asyncio
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from bench.processes import Child, child
from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.prometheus.flows import LoopMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import AdmitMetrics
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.api.quota import QuotaFlows
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.ids import MeterName, OperationId, SourceId, TenantId
from tallygate.domain.request import ConsumeRequest, ConsumeResult, Item
from tallygate.flow.decide import DecideParts
from tallygate.flow.gather import Gather
from tallygate.gen.v1 import quota_pb2
from tallygate.settings import Settings
from tallygate.wiring.leasing import settling
from tallygate.wiring.outage import Outages
from tallygate.wiring.serve import flows_of

CHECK = "tallygate.v1.QuotaService/CheckAndConsume"
CATALOG = """
version: 1
default_plan: bench
meters:
  requests: {aggregation: count}
plans:
  bench:
    limits:
      - {id: minute, meter: requests, kind: window, period: minute, limit: 1_000_000_000}
      - {id: month, meter: requests, kind: window, period: month, limit: 1_000_000_000}
"""
CALLS = 20_000
LONE_CALLS = 3_000
WARM_UP = 4_000
CALLERS = 128
CONNECTIONS = 4
SHARDS = 16
# A busy machine is slow, and that is no outage.
PATIENCE_MS = 10_000
MEMORY_MS = 60_000

# Calls per second, and per second of the process's own processor time.
Speed = tuple[float, float]
Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


async def main() -> None:
    """Measure with and without leases, then print one table."""
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG)
        async with EmbeddedRedis(folder / "redis") as redis:
            rows = [*await _in_process(redis.url, catalog)]
            rows += await _over_grpc(folder, redis.url, catalog)
    show([Sheet("leases", ("what", "by Redis", "leased", "ratio"), rows)], as_json=False)


async def _in_process(url: str, catalog: Path) -> list[tuple[Cell, ...]]:
    found = {mode: await _decisions(url, catalog, mode) for mode in ("off", "on")}
    rows: list[tuple[Cell, ...]] = []
    for callers, place in ((f"{CALLERS} callers", 0), ("one caller", 1)):
        for measure, which in (("", 0), (", per second of its processor", 1)):
            by_redis, leased = (found[mode][place][which] for mode in ("off", "on"))
            rows.append(_row(f"in process, {callers}{measure}", by_redis, leased))
    return rows


async def _decisions(url: str, catalog: Path, mode: str) -> tuple[Speed, Speed]:
    """Return the speed of many callers, and of one."""
    settings = Settings(
        leases=mode,  # type: ignore[arg-type]  # one of its two values
        breaker_hang_ms=PATIENCE_MS,
        redis_timeout_ms=PATIENCE_MS,
    )
    metrics, clock = Metrics(CollectorRegistry(), version="bench"), SystemClock()
    client: Redis = connect(url, settings.redis_timeout_ms)
    store = RedisQuotaStore(client, StoreOptions(SourceId(f"bench-{mode}"), SHARDS, MEMORY_MS))
    await store.open()
    view = FileCatalogView(catalog)
    await view.refresh()
    outages = Outages(settings, store, clock, metrics)
    gather = Gather(outages.breaker, clock, queue_max=10_000, batch_max=settings.admit_batch_max)
    task = asyncio.create_task(gather.run())
    observer = AdmitMetrics(metrics)
    gate = outages.gate(gather)
    parts = DecideParts(view, gate, clock, ProtobufEventEncoder(), observer, SHARDS)
    flows = flows_of(parts, outages.breaker, settings, metrics)
    loops = LoopMetrics(metrics)
    end = None
    if flows.leases is not None:
        end = settling(flows.leases, outages, clock, loops, lambda: clock.monotonic() + 5)
    await _calls(flows, mode, "warm", CALLERS, WARM_UP)
    many = await _calls(flows, mode, "many", CALLERS, CALLS)
    one = await _calls(flows, mode, "one", 1, LONE_CALLS)
    if end is not None:
        await end()
    gather.close()
    await task
    await outages.breaker.close()
    await client.aclose()
    return many, one


async def _calls(flows: QuotaFlows, mode: str, name: str, callers: int, calls: int) -> Speed:
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            operation_id = OperationId(f"{mode}-{name}-{number}")
            items = (Item(MeterName("requests"), 1),)
            request = ConsumeRequest(TenantId("tenant-1"), items, operation_id)
            (result,) = await flows.admit.consume([request])
            assert isinstance(result, ConsumeResult), result
            assert result.decision.allowed
            # As a transport would: other tasks have their turn between two calls.
            await asyncio.sleep(0)

    started, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return calls / (time.perf_counter() - started), calls / (time.process_time() - busy)


async def _over_grpc(folder: Path, redis_url: str, catalog: Path) -> list[tuple[Cell, ...]]:
    environment = {name: value for name, value in os.environ.items() if "TALLYGATE" not in name}
    message = quota_pb2.CheckAndConsumeRequest(tenant_id="tenant-1")
    message.items.add(meter="requests", amount=1)
    frame = message.SerializeToString()
    many: dict[str, float] = {}
    one: dict[str, float] = {}
    share = 0.0
    with child(["-m", "bench.empty_server"], environment) as empty:
        many["empty"], one["empty"] = await _measure(empty.port, frame)
        for mode in ("off", "on"):
            with _sidecar(folder / mode, redis_url, catalog, mode) as sidecar:
                many[mode], one[mode] = await _measure(sidecar.port, frame)
                share = _leased(sidecar) / sidecar.allowed()
    return [
        _row("grpc.aio, 4 x 32 calls", many["off"], many["on"]),
        _row("grpc.aio, one at a time", one["off"], one["on"]),
        ("of an empty handler, 4 x 32", *_of(many), ""),
        ("of an empty handler, one at a time", *_of(one), ""),
        ("calls granted from leases", "", f"{share:.0%}", ""),
    ]


@contextmanager
def _sidecar(folder: Path, redis_url: str, catalog: Path, mode: str) -> Iterator[Child]:
    environment = {name: value for name, value in os.environ.items() if "TALLYGATE" not in name}
    serving = environment | {
        "TALLYGATE_REDIS_URL": redis_url,
        "TALLYGATE_CATALOG": str(catalog),
        "TALLYGATE_DATA_DIR": str(folder),
        "TALLYGATE_GRPC_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_OPS_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_LOG_LEVEL": "error",
        "TALLYGATE_LEASES": mode,
        "TALLYGATE_BREAKER_HANG_MS": str(PATIENCE_MS),
        "TALLYGATE_REDIS_TIMEOUT_MS": str(PATIENCE_MS),
    }
    with child(["-m", "tallygate", "serve"], serving) as sidecar:
        yield sidecar


async def _measure(port: int, frame: bytes) -> tuple[float, float]:
    await _load(port, frame, CALLERS, WARM_UP)
    return await _load(port, frame, CALLERS, CALLS), await _load(port, frame, 1, LONE_CALLS)


async def _load(port: int, frame: bytes, callers: int, calls: int) -> float:
    """Return calls per second of a client that costs as much as the server: for ratios only."""
    numbers = iter(range(calls))
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(
                    f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
                )
            )
            for _ in range(min(callers, CONNECTIONS))
        ]
        methods: list[Call] = [channel.unary_unary(f"/{CHECK}") for channel in channels]

        async def caller(place: int) -> None:
            method = methods[place % len(methods)]
            for _ in numbers:
                await method(frame)

        started = time.perf_counter()
        await asyncio.gather(*(caller(place) for place in range(callers)))
        return calls / (time.perf_counter() - started)


def _leased(sidecar: Child) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.ops_port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    (line,) = [each for each in lines if each.startswith("tallygate_lease_grants_total ")]
    return float(line.split()[1])


def _row(what: str, by_redis: float, leased: float) -> tuple[Cell, ...]:
    return what, f"{by_redis:,.0f} /s", f"{leased:,.0f} /s", f"{leased / by_redis:.2f}"


def _of(speeds: dict[str, float]) -> tuple[str, str]:
    return f"{speeds['off'] / speeds['empty']:.2f}", f"{speeds['on'] / speeds['empty']:.2f}"


if __name__ == "__main__":
    asyncio.run(main())
