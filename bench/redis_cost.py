"""What operations cost a Redis: its processor time, its commands and its memory, as it counts them.

Owns a server of the system, or the bundled one where there is none, and operations as a sidecar
would send them. Guarantees: times are the server's own processor time, not the clock's, which
others on the machine stretch; of the rounds the fastest fifth counts. Refuses to know: what is
compared with what.
"""

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.catalog import Limit, LimitKind, OnExceed
from tallygate.domain.decision import Charge, Decided, Mode, Operation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    SourceId,
    TenantId,
    account_of,
)
from tallygate.domain.limit import charge
from tallygate.domain.window import Calendar, Period

TIMEOUT_MS = 30_000
MEMORY_MS = 900_000
SHARD = 1
SHARDS = 16
PLENTY = 10**12
METER = MeterName("requests")
CALENDAR = Calendar("UTC", 0)
PERIODS = (Period.MINUTE, Period.HOUR, Period.DAY, Period.MONTH)
# The server reads its clock in every call; those of the measuring itself are no part of it.
NOT_OURS = {"evalsha", "info"}

Change = dict[str, object]


def limit(name: str, kind: LimitKind = LimitKind.WINDOW, **fields: object) -> Limit:
    """Return a hard limit that nothing here reaches, a window of a day unless fields say more."""
    values: dict[str, Any] = {"period": Period.DAY, "limit": PLENTY, **fields}
    return Limit(
        limit_id=LimitId(name), meter=METER, kind=kind, on_exceed=OnExceed.REFUSE, **values
    )


def windows(count: int) -> list[Limit]:
    """Return so many windows, of four periods in turn."""
    return [limit(f"window-{n}", period=PERIODS[n % len(PERIODS)]) for n in range(count)]


def rate() -> Limit:
    """Return a rate of a million per second."""
    return limit("rate", LimitKind.RATE, period=Period.SECOND, limit=10**6, burst=10**6)


def tenant(number: int) -> TenantId:
    """Return a tenant's name, as long as any other."""
    return TenantId(f"tenant-{number:08}")


class Calls:
    """Makes operations, each with an id and an event of its own."""

    def __init__(self) -> None:
        self._number = 0
        self._encoder = ProtobufEventEncoder()

    def charges(self, limits: Sequence[Limit], of: TenantId, units: int = 1) -> tuple[Charge, ...]:
        """Bind the limits to a tenant now."""
        now_us = time.time_ns() // 1000
        return tuple(charge(each, account_of(of), CALENDAR, units, now_us) for each in limits)

    def one(self, of: TenantId, charges: tuple[Charge, ...], **changes: object) -> Operation:
        """Return a call of one unit, with an event of some 70 bytes."""
        self._number += 1
        name = f"01HZX5V6Q8{self._number:016}"
        event = UsageEvent(EventId(name), of, METER, 1, 0, OperationId(name))
        values: dict[str, Any] = {
            "mode": Mode.CONSUME,
            "tenant_id": of,
            "shard": SHARD,
            "operation_id": OperationId(name),
            "fingerprint": f"{self._number:032x}",
            "charges": charges,
            "event_count": 1,
            "payload": self._encoder.encode([event]),
            **changes,
        }
        return Operation(**values)


@dataclass(frozen=True, slots=True)
class Look:
    """What a server has counted so far."""

    cpu_us: float
    script_us: float
    commands: float
    scripts: float
    received: float


@dataclass(slots=True)
class Cost:
    """What one operation cost, round by round."""

    cpu: list[float] = field(default_factory=list)
    scripts: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        """The server's processor time per operation, its reading and writing included."""
        return _fastest(self.cpu)

    @property
    def script_us(self) -> float:
        """The script's own time per operation, by the server's clock."""
        return _fastest(self.scripts)

    @property
    def commands(self) -> float:
        """Commands that the script ran per operation."""
        return statistics.median(self.counts)

    @property
    def bytes_sent(self) -> float:
        """Bytes that the server was sent per operation."""
        return statistics.median(self.received)


def _fastest(times: Sequence[float]) -> float:
    best = sorted(times)[: max(1, len(times) // 5)]
    return sum(best) / len(best)


class Costs:
    """One server, and what is asked of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Redis = connect(url, TIMEOUT_MS)

    def store(self, name: str = "bench", shards: int = SHARDS) -> RedisQuotaStore:
        """Return a sidecar's store, with connections of its own."""
        options = StoreOptions(SourceId(name), shards, MEMORY_MS)
        return RedisQuotaStore(connect(self.url, TIMEOUT_MS), options)

    async def look(self) -> Look:
        """Return what the server has counted so far."""
        found: dict[str, Any] = {}
        for section in ("cpu", "stats", "commandstats"):
            found |= await self.client.info(section)
        calls = {
            name.removeprefix("cmdstat_"): each["calls"]
            for name, each in found.items()
            if name.startswith("cmdstat_")
        }
        return Look(
            cpu_us=(found["used_cpu_user"] + found["used_cpu_sys"]) * 1e6,
            script_us=found.get("cmdstat_evalsha", {"usec": 0})["usec"],
            commands=sum(count for name, count in calls.items() if name not in NOT_OURS),
            scripts=calls.get("evalsha", 0),
            received=found["total_net_input_bytes"],
        )

    async def measure(
        self, cost: Cost, operations: int, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Do the work of so many operations, and note what one of them cost."""
        before = await self.look()
        await work()
        after = await self.look()
        cost.cpu.append((after.cpu_us - before.cpu_us) / operations)
        cost.scripts.append((after.script_us - before.script_us) / operations)
        cost.counts.append((after.commands - before.commands) / operations)
        cost.received.append((after.received - before.received) / operations)

    async def used_bytes(self) -> int:
        """Return the memory that the server has given out."""
        found = await self.client.info("memory")
        return int(found["used_memory"])

    async def close(self) -> None:
        """Close the connection."""
        await self.client.aclose()


async def decide(store: RedisQuotaStore, batches: Sequence[Sequence[Operation]]) -> None:
    """Decide the batches one after the other, and make sure that all of it was allowed."""
    for batch in batches:
        outcomes = await store.decide(batch)
        refused = [each for each in outcomes if not isinstance(each, Decided) or not each.allowed]
        assert not refused, refused[:3]


@asynccontextmanager
async def server(*options: str) -> AsyncIterator[Costs]:
    """Run a Redis as production does, unless options say otherwise."""
    binary = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        async with EmbeddedRedis(folder, binary=binary, options=options) as running:
            costs = Costs(running.url)
            try:
                yield costs
            finally:
                await costs.close()


def run(main: Awaitable[None]) -> None:
    """Run a bench to its end."""

    async def whole() -> None:
        await main

    asyncio.run(whole())
