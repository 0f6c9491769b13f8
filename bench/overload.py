"""`python -m bench.overload`: what a flood does to callers, and what refusing costs; needs h2load.

Guarantees: every ratio is of two figures from one run; sidecar, flood and callers are processes of
their own, and Redis is a real one. Refuses to know: budgets; those are the reader's.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import load
from bench.processes import Child, child
from bench.targets import CATALOG, CHECK
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.commands.output import Cell, Sheet, show
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc

SECONDS = 6
COLD = [f"cold-{n}" for n in range(4)]
FLOOD_CLIENTS = 4
# In flight at once: what keeps pipelines full, and a queue's room several times over.
USUAL_STREAMS = 32
FLOOD_STREAMS = 250
ROOM = 128
TIMEOUT_S = 2.0


@dataclass(slots=True)
class Met:
    """What some callers met: ends by code, and the seconds of those answered."""

    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def ms(self, share: float) -> float:
        """Return the time in ms within which so large a share was answered."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))] * 1e3

    def row(self, what: str, beside: "Met | None" = None) -> tuple[Cell, ...]:
        """Return these as a row of the table, with their median beside others'."""
        ratio = f"{self.ms(0.5) / beside.ms(0.5):.1f}" if beside is not None else ""
        failed = sum(self.ends.values()) - self.ends["OK"]
        speed = f"{len(self.seconds) / SECONDS:,.0f} /s"
        return what, speed, f"{failed:,}", f"{self.ms(0.5):.1f}", f"{self.ms(0.99):.1f}", ratio


def message(tenant: str) -> quota_pb2.CheckAndConsumeRequest:
    """Return a call of a tenant."""
    request = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant)
    request.items.add(meter="requests", amount=1)
    return request


async def called(port: int, tenants: Sequence[str]) -> Met:
    """Have each tenant call time and again, over one connection of their own."""
    met, ends = Met(), time.monotonic() + SECONDS
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = quota_pb2_grpc.QuotaServiceStub(channel)

        async def one(tenant: str) -> None:
            while (began := time.monotonic()) < ends:
                try:
                    await stub.CheckAndConsume(message(tenant), timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    met.ends[error.code().name] += 1
                    continue
                met.ends["OK"] += 1
                met.seconds.append(time.monotonic() - began)

        await asyncio.gather(*map(one, tenants))
    return met


async def flooded(sidecar: Child, streams: int) -> tuple[tuple[Cell, ...], Met]:
    """Flood with one tenant's calls while others call; return its row, and what others met."""
    before = sidecar.allowed()
    answers, met = await asyncio.gather(
        asyncio.to_thread(
            load.flood,
            sidecar.port,
            CHECK,
            message("hot").SerializeToString(),
            seconds=SECONDS,
            clients=FLOOD_CLIENTS,
            streams=streams,
        ),
        called(sidecar.port, COLD),
    )
    granted = (sidecar.allowed() - before - len(met.seconds)) / SECONDS
    what = f"hot tenant, {FLOOD_CLIENTS} x {streams} in flight"
    row = (what, f"{granted:,.0f} /s", f"{answers - granted:,.0f} /s", "", "", "")
    return row, met


async def measured(sidecar: Child) -> list[tuple[Cell, ...]]:
    """Measure one sidecar; return the table's rows."""
    await called(sidecar.port, COLD)
    idle = sidecar.rss_mb()
    alone = await called(sidecar.port, COLD)
    rows = [alone.row("4 cold callers alone")]
    for streams in (USUAL_STREAMS, FLOOD_STREAMS):
        row, met = await flooded(sidecar, streams)
        rows += [row, met.row("4 cold callers beside it", alone)]
    after = await called(sidecar.port, COLD)
    rows.append(after.row("4 cold callers afterwards", alone))
    memory = f"{idle:,.0f} MB, then {sidecar.rss_mb():,.0f} MB"
    return [*rows, ("resident memory", memory, "", "", "", "")]


async def main() -> None:
    """Measure, then print one table."""
    if not load.available():
        sys.exit("bench: h2load is missing; Debian has it in nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG)
        kept = {key: value for key, value in os.environ.items() if "TALLYGATE" not in key}
        async with EmbeddedRedis(folder / "redis") as redis:
            serving = kept | {
                "TALLYGATE_REDIS_URL": redis.url,
                "TALLYGATE_CATALOG": str(catalog),
                "TALLYGATE_DATA_DIR": str(folder / "data"),
                "TALLYGATE_GRPC_ADDRESS": "127.0.0.1:0",
                "TALLYGATE_OPS_ADDRESS": "127.0.0.1:0",
                "TALLYGATE_LOG_LEVEL": "error",
                "TALLYGATE_COUNTER_REBUILD": "none",
                "TALLYGATE_ADMIT_QUEUE_MAX": str(ROOM),
            }
            with child(["-m", "tallygate", "serve"], serving) as sidecar:
                rows = await measured(sidecar)
    columns = ("what", "answered", "refused", "median ms", "p99 ms", "median / alone")
    show([Sheet("overload", columns, rows)], as_json=False)


if __name__ == "__main__":
    asyncio.run(main())
