"""`make bench-curves`: how an operation's cost to Redis grows with what there is of everything.

Owns the curves: tenants, limits, sidecars on one Redis, shards; that of processes behind one port
is `groups`. Guarantees: each point is compared with its curve's first, and measured in turns with
it where it does not change what is stored; a curve begins on an empty server.
Refuses to know: Python's part, and what other processes cost.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import groups
from bench.redis_cost import (
    SHARD,
    Calls,
    Cost,
    Costs,
    decide,
    rate,
    run,
    server,
    tenant,
    windows,
)
from tallygate.adapters.redis import keys, layout
from tallygate.adapters.redis.quota_store import RedisQuotaStore
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.decision import Operation
from tallygate.domain.ids import TenantId

ROUNDS: Final = 10
TENANTS: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
LIMITS: Final = (1, 2, 4, 8, 16, 32)
SIDECARS: Final = (1, 5, 10, 25, 50)
SHARD_COUNTS: Final = (1, 4, 16, 64)
TOGETHER: Final = 64
CALLS: Final = 5
FILLED_TOGETHER: Final = 5_000
SEED: Final = 5

# Accounts as the script writes them, without one call of it each: ten seconds for a million.
_FILL: Final = """
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local key = ARGV[1] .. string.format(ARGV[6], number)
  redis.call('HSET', key, ARGV[2], ARGV[3], 'x', ARGV[7])
  redis.call('PEXPIREAT', key, ARGV[7])
end
"""
_NAME: Final = "tenant-%08d"


@dataclass(slots=True)
class Point:
    """One point of a curve: how much there is of it, and what operations cost there."""

    label: str
    batch: int
    cost: Cost = field(default_factory=Cost)
    kept: str = ""


class Curves:
    """One server, and the points measured on it."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._calls = Calls()
        self._random = random.Random(SEED)

    async def tenants(self) -> list[Point]:
        """Measure calls of tenants at random, while more and more of them are there."""
        points: list[Point] = []
        await self._costs.client.flushall()
        store = self._costs.store()
        await store.open()
        epochs = await layout.agree_on_epochs(self._costs.client, [SHARD])
        there = 0
        for count in TENANTS:
            before = await self._costs.used_bytes()
            await self._fill(epochs[SHARD], there, count)
            kept = (await self._costs.used_bytes() - before) / (count - there)
            there = count
            for batch in (1, TOGETHER):
                point = Point(f"{count:,} tenants", batch, kept=f"{kept:.0f}")
                for number in range(ROUNDS + 1):
                    found = [self._random.sample(range(count), batch) for _ in range(CALLS)]
                    each = [self._one(tenant(n)) for numbers in found for n in numbers]
                    await self._measure(store, point, each, warm=number == 0)
                points.append(point)
            await self._costs.client.delete(keys.stream(SHARD))
        return points

    async def limits(self) -> list[Point]:
        """Measure calls of one tenant that meet so many limits."""
        await self._costs.client.flushall()
        store = self._costs.store()
        of = tenant(0)
        points = [Point(f"limits: {count}", batch) for count in LIMITS for batch in (1, TOGETHER)]
        for number in range(ROUNDS + 1):
            for point, count in zip(points, (n for n in LIMITS for _ in range(2)), strict=True):
                charges = self._calls.charges(windows(count), of)
                each = [self._calls.one(of, charges) for _ in range(point.batch * CALLS)]
                await self._measure(store, point, each, warm=number == 0)
        return points

    async def sidecars(self) -> list[Point]:
        """Measure calls of so many sidecars at once, each with connections of its own."""
        await self._costs.client.flushall()
        points = [
            Point(f"sidecars: {count}", batch) for count in SIDECARS for batch in (1, TOGETHER)
        ]
        stores = [self._costs.store(f"sidecar-{n}") for n in range(max(SIDECARS))]
        for store in stores:
            await store.open()
        for number in range(ROUNDS + 1):
            for point, count in zip(points, (n for n in SIDECARS for _ in range(2)), strict=True):
                # As many operations in all, whoever sends them.
                rounds = max(1, 50 // count) if point.batch == 1 else max(1, 10 // count)
                work = self._abreast(stores[:count], point.batch, rounds)
                await self._costs.measure(
                    point.cost if number else Cost(), count * rounds * point.batch, work
                )
        return points

    async def shards(self) -> list[Point]:
        """Measure calls that arrive 64 together, and lie on so many shards."""
        points = [Point(f"shards: {count}", TOGETHER) for count in SHARD_COUNTS]
        for point, count in zip(points, SHARD_COUNTS, strict=True):
            await self._costs.client.flushall()
            store = self._costs.store(shards=count)
            for number in range(ROUNDS + 1):
                each = [self._one(tenant(n), shard=n % count) for n in range(TOGETHER)]
                await self._measure(store, point, each, warm=number == 0)
        return points

    def _one(self, of: TenantId, **changes: object) -> Operation:
        return self._calls.one(of, self._calls.charges([*windows(1), rate()], of), **changes)

    def _abreast(
        self, stores: Sequence[RedisQuotaStore], batch: int, rounds: int
    ) -> Callable[[], Awaitable[None]]:
        batches = [
            [[self._one(tenant(place)) for _ in range(batch)] for _ in range(rounds)]
            for place, _ in enumerate(stores)
        ]

        async def work() -> None:
            await asyncio.gather(*map(decide, stores, batches))

        return work

    async def _measure(
        self, store: RedisQuotaStore, point: Point, operations: Sequence[Operation], *, warm: bool
    ) -> None:
        batch = point.batch
        batches = [operations[n : n + batch] for n in range(0, len(operations), batch)]
        await self._costs.measure(
            Cost() if warm else point.cost, len(operations), lambda: decide(store, batches)
        )

    async def _fill(self, epoch: str, start: int, end: int) -> None:
        """Give the tenants from one number to another what a few calls would leave of them."""
        (window,) = self._calls.charges(windows(1), tenant(0))
        ends_ms = str(4_102_444_800_000)
        for first in range(start, end, FILLED_TOGETHER):
            last = min(end, first + FILLED_TOGETHER) - 1
            prefix = keys.account_prefix(SHARD, epoch)
            value = f"{window.rule.starts_us}:17:0"  # type: ignore[union-attr]  # it is a window's
            arguments = (prefix, window.field, value, first, last, _NAME, ends_ms)
            await self._costs.client.eval(_FILL, 0, *map(str, arguments))


def _rows(points: Sequence[Point]) -> list[tuple[Cell, ...]]:
    first = {point.batch: point.cost for point in reversed(points)}
    return [
        (
            point.label,
            point.batch,
            f"{point.cost.cpu_us:.1f}",
            f"{point.cost.cpu_us / first[point.batch].cpu_us:.2f}",
            f"{point.cost.script_us:.1f}",
            f"{point.cost.commands:.2f}",
            f"{point.cost.bytes_sent:.0f}",
            point.kept,
        )
        for point in points
    ]


async def main() -> None:
    """Measure every curve, then print them."""
    rows: list[tuple[Cell, ...]] = []
    async with server("--appendonly", "no") as costs:
        version = (await costs.client.info("server"))["redis_version"]
        curves = Curves(costs)
        for curve in (curves.limits, curves.sidecars, curves.shards, curves.tenants):
            rows += _rows(await curve())
    columns = (
        *("there are", "at once", "CPU us", "ratio", "script us", "commands", "bytes sent"),
        "bytes per tenant",
    )
    sheets = [Sheet(f"an operation, Redis {version}", columns, rows)]
    behind_a_port = await groups.sheet()
    show([*sheets, *([behind_a_port] if behind_a_port is not None else [])], as_json=False)


if __name__ == "__main__":
    run(main())
