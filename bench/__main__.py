"""`make bench`: speed and memory of the sidecar beside an empty grpc.aio handler, in one run.

Guarantees: every ratio is of two figures from this run, the reference measured before and after;
that calls were really decided is checked against the sidecar's own counters.
Refuses to know: budgets; those are the reader's.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from bench import load
from bench.ingest import fill_and_drain
from bench.processes import Child, child
from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.commands.output import Cell, Sheet, show
from tallygate.gen.v1 import quota_pb2, usage_pb2

CHECK = "tallygate.v1.QuotaService/CheckAndConsume"
BATCH_CHECK = "tallygate.v1.QuotaService/BatchCheckAndConsume"
BATCH_RECORD = "tallygate.v1.UsageService/BatchRecordUsage"
CALLS = 20_000
LONE_CALLS = 2_000
BATCHES = 400
BATCH_SIZE = 100
WARM_UP = 2_000
HOT_TENANTS = 10_000
INGEST_EVENTS = 60_000
INGEST_TENANTS = 1_000

CATALOG = """
version: 1
default_plan: bench
meters:
  requests: {aggregation: count}
plans:
  bench:
    limits:
      - {id: minute, meter: requests, kind: window, period: minute, limit: 1_000_000_000}
      - {id: rate, meter: requests, kind: rate, period: second, limit: 1_000_000}
"""


async def main() -> None:
    """Measure everything, then print one table."""
    if not load.available():
        sys.exit("bench: h2load is missing; Debian has it in nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        async with EmbeddedRedis(folder / "redis") as redis:
            rows = await asyncio.to_thread(_sidecar, folder, redis.url)
        async with (
            EmbeddedRedis(folder / "redis2") as redis,
            EmbeddedPostgres(folder / "postgres") as postgres,
        ):
            _say("ingest …")
            dsn = postgres.dsn_of("tallygate")
            speed = await fill_and_drain(
                redis.url, dsn, events=INGEST_EVENTS, tenants=INGEST_TENANTS
            )
            rows.append((f"ingest, {INGEST_TENANTS:,} tenants", f"{speed:,.0f} events/s", "", ""))
    show([Sheet("bench", ("what", "speed", "mean ms", "of empty handler"), rows)], as_json=False)


def _sidecar(folder: Path, redis_url: str) -> list[tuple[Cell, ...]]:
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    environment = {name: value for name, value in os.environ.items() if "TALLYGATE" not in name}
    serving = environment | {
        "TALLYGATE_REDIS_URL": redis_url,
        "TALLYGATE_CATALOG": str(catalog),
        "TALLYGATE_DATA_DIR": str(folder / "data"),
        "TALLYGATE_GRPC_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_OPS_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_LOG_LEVEL": "error",
    }
    rows: list[tuple[Cell, ...]] = []
    with (
        child(["-m", "bench.empty_server"], environment) as empty,
        child(["-m", "tallygate", "serve"], serving) as sidecar,
    ):
        idle_mb = sidecar.rss_mb()
        one = _check_message("tenant-1")
        for port in (empty.port, sidecar.port):
            load.run(port, CHECK, one, calls=WARM_UP, clients=4, streams=32)
        _say("one call at a time …")
        lone_empty = load.run(empty.port, CHECK, one, calls=LONE_CALLS, clients=1, streams=1)
        lone = load.run(sidecar.port, CHECK, one, calls=LONE_CALLS, clients=1, streams=1)
        _say("4 connections of 32 calls …")
        before = load.run(empty.port, CHECK, one, calls=CALLS, clients=4, streams=32)
        cpu, allowed = sidecar.cpu_s(), sidecar.allowed()
        busy = load.run(sidecar.port, CHECK, one, calls=CALLS, clients=4, streams=32)
        cpu_us = (sidecar.cpu_s() - cpu) / CALLS * 1e6
        decided = sidecar.allowed() - allowed
        assert decided == CALLS, f"{CALLS} calls were sent, {decided:.0f} were allowed"
        after = load.run(empty.port, CHECK, one, calls=CALLS, clients=4, streams=32)
        reference = (before.per_second + after.per_second) / 2
        rows += [
            _row("empty handler, 4 x 32", (before.per_second + after.per_second) / 2, before, 1.0),
            _row("CheckAndConsume, 4 x 32", busy.per_second, busy, busy.per_second / reference),
            _row("empty handler, one at a time", lone_empty.per_second, lone_empty, 1.0),
            _row(
                "CheckAndConsume, one at a time",
                lone.per_second,
                lone,
                lone.per_second / lone_empty.per_second,
            ),
            ("processor time of the sidecar per call", f"{cpu_us:,.0f} us", "", ""),
        ]
        _say("batches of 100 …")
        rows += _batches(sidecar)
        _say("10,000 tenants …")
        _touch_tenants(sidecar)
        rows += [
            ("resident memory, idle", f"{idle_mb:,.0f} MB", "", ""),
            ("resident memory, 10,000 tenants hot", f"{sidecar.rss_mb():,.0f} MB", "", ""),
        ]
    return rows


def _batches(sidecar: Child) -> list[tuple[Cell, ...]]:
    checks = quota_pb2.BatchCheckAndConsumeRequest()
    records = usage_pb2.BatchRecordUsageRequest()
    for number in range(BATCH_SIZE):
        checks.requests.append(_check(f"tenant-{number}"))
        records.requests.add(tenant_id=f"tenant-{number}", meter="requests", amount=1)
    rows: list[tuple[Cell, ...]] = []
    for what, method, message in (
        ("batches of 100 checks", BATCH_CHECK, checks.SerializeToString()),
        ("batches of 100 RecordUsage", BATCH_RECORD, records.SerializeToString()),
    ):
        result = load.run(sidecar.port, method, message, calls=BATCHES, clients=4, streams=2)
        speed = f"{result.per_second * BATCH_SIZE:,.0f} /s"
        rows.append((what, speed, f"{result.mean_ms:.2f}", ""))
    return rows


def _touch_tenants(sidecar: Child) -> None:
    for start in range(0, HOT_TENANTS, 1_000):
        batch = quota_pb2.BatchCheckAndConsumeRequest(
            requests=[_check(f"hot-{start + number}") for number in range(1_000)]
        )
        message = batch.SerializeToString()
        load.run(sidecar.port, BATCH_CHECK, message, calls=2, clients=1, streams=1)


def _check(tenant: str) -> quota_pb2.CheckAndConsumeRequest:
    request = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant)
    request.items.add(meter="requests", amount=1)
    return request


def _check_message(tenant: str) -> bytes:
    return _check(tenant).SerializeToString()


def _row(what: str, speed: float, result: load.Result, ratio: float) -> tuple[Cell, ...]:
    return what, f"{speed:,.0f} calls/s", f"{result.mean_ms:.2f}", f"{ratio:.2f}"


def _say(what: str) -> None:
    sys.stderr.write(f"bench: {what}\n")


if __name__ == "__main__":
    asyncio.run(main())
