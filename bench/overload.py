"""`python -m bench.overload`: what overload and a hot tenant do to callers, and what refusing costs.

Guarantees: every ratio is of two figures from one run; the sidecar is a process of its own, and its
Redis a real one. Refuses to know: budgets; those are the reader's.
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

from bench.__main__ import CATALOG
from bench.processes import Child, child
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.commands.output import Cell, Sheet, show
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc

SECONDS = 5.0
COLD_CALLERS = 4
USUAL_CALLERS = 32
# Clients in Python bring no ten times a sidecar's capacity: its room is made ten times smaller.
ROOM = 32
FLOOD_CALLERS = 320
TIMEOUT_S = 1.0


@dataclass(slots=True)
class Load:
    """What some callers met: ends by code, and the seconds of those answered."""

    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def ms(self, share: float) -> float:
        """Return the time in ms within which so large a share was answered."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))] * 1e3

    def row(self, what: str, beside: "Load | None" = None) -> tuple[Cell, ...]:
        """Return the load as a row of the table, with its median beside another's."""
        ratio = f"{self.ms(0.5) / beside.ms(0.5):.1f}" if beside is not None else ""
        refused = sum(self.ends.values()) - self.ends["OK"]
        speed = f"{len(self.seconds) / self.took_s:,.0f} /s"
        return what, speed, f"{refused:,}", f"{self.ms(0.5):.1f}", f"{self.ms(0.99):.1f}", ratio


async def load(port: int, tenants: Sequence[str], callers: int, *, minds: bool = True) -> Load:
    """Have so many callers call for a while, over one connection; refused, they wait or do not."""
    found, ends = Load(), time.monotonic() + SECONDS
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = quota_pb2_grpc.QuotaServiceStub(channel)

        async def one(number: int) -> None:
            request = quota_pb2.CheckAndConsumeRequest(tenant_id=tenants[number % len(tenants)])
            request.items.add(meter="requests", amount=1)
            while (began := time.monotonic()) < ends:
                try:
                    await stub.CheckAndConsume(request, timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    found.ends[error.code().name] += 1
                    told = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
                    if minds and told is not None:
                        await asyncio.sleep(int(told) / 1e3)
                    continue
                found.ends["OK"] += 1
                found.seconds.append(time.monotonic() - began)

        began = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(callers)))
        found.took_s = time.monotonic() - began
    return found


async def measure(sidecar: Child) -> list[tuple[Cell, ...]]:
    """Measure one sidecar with a small queue; return the table's rows."""
    cold = [f"cold-{n}" for n in range(COLD_CALLERS)]
    rows: list[tuple[Cell, ...]] = []
    await load(sidecar.port, cold, COLD_CALLERS)
    idle = sidecar.rss_mb()
    alone = await load(sidecar.port, cold, COLD_CALLERS)
    rows.append(alone.row("4 cold callers alone"))
    usual = await load(sidecar.port, cold, USUAL_CALLERS)
    rows.append(usual.row("32 callers"))
    for minds in (True, False):
        said = "minding pushbacks" if minds else "minding nothing"
        flood = await load(sidecar.port, cold, FLOOD_CALLERS, minds=minds)
        rows.append(flood.row(f"320 callers, {said}", usual))
        hot, others = await asyncio.gather(
            load(sidecar.port, ["hot"], FLOOD_CALLERS, minds=minds),
            load(sidecar.port, cold, COLD_CALLERS),
        )
        rows.append(hot.row(f"320 of one hot tenant, {said}"))
        rows.append(others.row("  4 cold callers beside it", alone))
    after = await load(sidecar.port, cold, COLD_CALLERS)
    rows.append(after.row("4 cold callers afterwards", alone))
    memory = f"{idle:,.0f} MB, then {sidecar.rss_mb():,.0f} MB"
    return [*rows, ("resident memory", memory, "", "", "", "")]


async def main() -> None:
    """Measure, then print one table."""
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
                "TALLYGATE_ADMIT_BATCH_MAX": "16",
            }
            with child(["-m", "tallygate", "serve"], serving) as sidecar:
                rows = await measure(sidecar)
    columns = ("what", "answered", "refused", "median ms", "p99 ms", "of the figure above")
    show([Sheet("overload", columns, rows)], as_json=False)
    sys.stderr.write("bench: ratios are of medians, of 32 or of 4 callers without overload\n")


if __name__ == "__main__":
    asyncio.run(main())
