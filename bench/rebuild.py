"""`make bench-rebuild`: how long it takes until counters that Redis has lost decide again.

Guarantees: what is timed is the product's own step on real Redis and Postgres, from an emptied
Redis to the last shard that is open; counters are then compared with the ledger, to the unit.
Refuses to know: journals, for which an installation waits a moment more than is counted here.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.postgres.counted_usage import PostgresUsageSnapshots
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.commands.output import Sheet, show
from tallygate.domain.catalog import Catalog, Limit, LimitKind, Meter, Plan, Tenant
from tallygate.domain.event import SequenceRange, UsageEvent
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    PlanName,
    SourceId,
    TenantId,
    shard_of,
)
from tallygate.domain.window import MINUTE_US, Period
from tallygate.flow.rebuild import Rebuild, RebuildOptions, RebuildParts
from tallygate.flow.recount import Recount
from tallygate.ports import LedgerBatch

SHARDS = 16
BATCH = 2_000
TIMEOUT_MS = 10_000
REQUESTS = MeterName("requests")
SOURCE = SourceId("bench.0001")
FREE = PlanName("free")
SLID_US = 60 * MINUTE_US


def _limit(name: str, period: Period | None, kind: LimitKind = LimitKind.WINDOW) -> Limit:
    slid_us = SLID_US if kind is LimitKind.SLIDING else 0
    return Limit(LimitId(name), REQUESTS, kind, period, 1_000_000, duration_us=slid_us)


LIMITS = (
    _limit("month", Period.MONTH),
    _limit("day", Period.DAY),
    _limit("hour", None, LimitKind.SLIDING),
)
CATALOG = Catalog(1, {REQUESTS: Meter(REQUESTS)}, {FREE: Plan(FREE, LIMITS)}, FREE)


class Declared:
    """Everybody is on the default plan."""

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog."""
        return CATALOG

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return nobody: none is declared."""
        return {}


async def fill(ledger: PostgresLedger, tenants: int, each: int) -> float:
    """Store so many events of each tenant; return how many a second were."""
    now_us = SystemClock().now_us()
    total = tenants * each
    started = time.perf_counter()
    for start in range(0, total, BATCH):
        numbers = range(start, min(start + BATCH, total))
        events = tuple(_event(number, tenants, now_us) for number in numbers)
        ranges = tuple(
            SequenceRange(SOURCE, event.source_lane, event.source_seq, event.source_seq)
            for event in events
        )
        await ledger.persist(LedgerBatch(events, ranges=ranges))
    return total / (time.perf_counter() - started)


def _event(number: int, tenants: int, now_us: int) -> UsageEvent:
    tenant = TenantId(f"tenant-{number % tenants}")
    lane = shard_of(tenant, SHARDS)
    # Spread over the hour before: all of them count in every window but the day's, at midnight.
    at_us = now_us - number * 7_919 % SLID_US
    return UsageEvent(
        event_id=EventId(f"event-{number}"),
        tenant_id=tenant,
        meter=REQUESTS,
        amount=1 + number % 7,
        event_time_us=at_us,
        operation_id=OperationId(f"event-{number}"),
        received_at_us=at_us,
        dimensions={"method": "GET"},
        source_id=SOURCE,
        source_lane=lane,
        source_seq=number + 1,
        counter_epoch="0001",
    )


def parts_of(client: Redis, postgres: Postgres) -> RebuildParts:
    """Return what rebuilding works with."""
    return RebuildParts(
        ledger=PostgresRebuildLedger(postgres),
        stages=RedisCounterStages(client, SHARDS),
        seen=RedisSeenNumbers(client),
        stream=RedisUsageStream(client, StreamOptions(SHARDS, consumer="bench")),
        store=RedisQuotaStore(
            client, StoreOptions(SourceId("bench-rebuild"), SHARDS, 60_000, opens_new=False)
        ),
        declared=Declared(),
        clock=SystemClock(),
    )


async def differences(client: Redis, postgres: Postgres) -> tuple[int, int]:
    """Return how many accounts the ledger has, and how many of their counters differ."""
    epochs = await RedisCounterStages(client, SHARDS).epochs()
    accounts = wrong = 0
    now_us = SystemClock().now_us()
    async with PostgresUsageSnapshots(postgres).snapshot() as usage:
        recount = Recount(usage, Declared(), CATALOG, shards=SHARDS, at_us=now_us)
        async for part in recount.accounts():
            accounts += len(part)
            for found in part:
                name = keys.account(found.shard, epochs[found.shard], found.account)
                stored = cast(dict[bytes, bytes], await client.hgetall(name))
                for charge, slots in zip(found.charges, found.slots, strict=True):
                    if charge.field.endswith(("month", "day")):
                        text = stored.get(charge.field.encode(), b"0:0:0").decode()
                        wrong += int(text.split(":")[1]) != slots[0][1]
    return accounts, wrong


@dataclass(frozen=True, slots=True)
class Filled:
    """An empty Redis beside a ledger that was filled with so many events a second."""

    client: Redis
    postgres: Postgres
    per_s: float

    async def rebuild(self) -> float:
        """Make all counters from the ledger; return the seconds that took."""
        parts = parts_of(self.client, self.postgres)
        rebuild = Rebuild(parts, RebuildOptions("bench", SHARDS, settle_ms=0))
        started = time.perf_counter()
        while (await rebuild.run_once()).shut:
            pass
        return time.perf_counter() - started


@asynccontextmanager
async def filled(tenants: int, each: int) -> AsyncIterator[Filled]:
    """Lend servers of their own whose ledger has so many events of each tenant."""
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        async with (
            EmbeddedRedis(folder / "redis") as redis,
            EmbeddedPostgres(folder / "postgres") as server,
        ):
            dsn = server.dsn_of("tallygate")
            await migrate(dsn)
            client, postgres = connect(redis.url, TIMEOUT_MS), Postgres(dsn)
            sys.stderr.write(f"bench: {tenants * each:,} events of {tenants:,} tenants …\n")
            per_s = await fill(PostgresLedger(postgres), tenants, each)
            await client.flushall()
            yield Filled(client, postgres, per_s)
            await postgres.close()
            await client.aclose()


async def main(tenants: int, each: int) -> None:
    """Measure, then print one table."""
    async with filled(tenants, each) as there:
        elapsed = await there.rebuild()
        accounts, wrong = await differences(there.client, there.postgres)
        assert not wrong, f"{wrong} counters are not what the ledger says"
        assert accounts == tenants
    rows = [
        ("events stored", f"{there.per_s:,.0f} /s"),
        (f"{tenants:,} tenants rebuilt from {tenants * each:,} events", f"{elapsed:.2f} s"),
        ("counters that differ from the ledger", "0"),
    ]
    show([Sheet("rebuild", ("what", "figure"), rows)], as_json=False)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--tenants", type=int, default=10_000)
    asked.add_argument("--events", type=int, default=10, help="of each tenant")
    options = asked.parse_args()
    asyncio.run(main(options.tenants, options.events))
