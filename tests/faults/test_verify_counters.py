"""Counters of a live system are held against the ledger to the unit, whatever is in flight."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.adapters.postgres.audit_usage import PostgresAuditSnapshots
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.counter_reads import RedisCounterReads
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.drift import Check
from tallygate.domain.ids import AccountId, TenantId, shard_of
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.verify import CounterFindings
from tallygate.flow.verify_counters import CounterAudit, CounterParts
from tallygate.gen.v1 import quota_pb2, usage_pb2
from tallygate.wiring.declared import Declarations
from tests.builders import SHARDS
from tests.faults.world import SystemClock
from tests.live import Live, document, live, monthly

SEED: Final = 4
ROUNDS: Final = 6
TENANTS: Final = {
    "org": {"plan": "every"},
    "team": {"plan": "every", "parent": "org"},
    "lone": {"plan": "every"},
}
DAILY: Final[dict[str, Any]] = {
    "id": "users",
    "meter": "requests",
    "kind": "window",
    "period": "day",
    "limit": 1_000_000,
    "per": "user",
}
SLIDING: Final[dict[str, Any]] = {
    "id": "hour",
    "meter": "requests",
    "kind": "sliding",
    "duration": "1h",
    "limit": 1_000_000,
}
HELD: Final[dict[str, Any]] = {
    "id": "jobs",
    "meter": "requests",
    "kind": "concurrency",
    "limit": 1_000_000,
}
EVERY: Final = (monthly(1_000_000), DAILY, SLIDING, HELD)


@dataclass
class System:
    """A sidecar under load, an ingester, and the audit of their counters."""

    on: Live
    redis: Redis
    postgres: Postgres
    audit: CounterAudit
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    number: int = 0
    stopped: bool = False

    async def apply(self, text: str) -> None:
        """Apply a document for the sidecar and for the audit."""
        await self.on.apply(text)
        await applied(self.postgres, text)

    async def findings(self) -> CounterFindings:
        """Return what verification says of counters."""
        return await self.audit.compare(None, lambda _: None)

    async def use(self, count: int) -> None:
        """Use all kinds of calls, each so often, as a seed has it."""
        for _ in range(count):
            await self.call()

    async def call(self) -> None:
        """Make one call of some kind."""
        (stubs,) = self.on.sidecars
        self.number += 1
        name, tenant = f"op-{self.number}", self.chance.choice(sorted(TENANTS))
        user = {"user": self.chance.choice("ab")}
        amount = self.chance.randint(2, 9)
        item = quota_pb2.Item(meter="requests", amount=amount, dimensions=user)
        match self.chance.choice(["consume", "refund", "record", "reserve", "commit", "release"]):
            case "record":
                event = usage_pb2.RecordUsageRequest(
                    tenant_id=tenant, meter="requests", amount=amount, event_id=name
                )
                event.dimensions.update(user)
                await stubs.usage.RecordUsage(event)
            case "reserve" | "commit" | "release" as kind:
                held = await stubs.quota.Reserve(
                    quota_pb2.ReserveRequest(tenant_id=tenant, items=[item], operation_id=name)
                )
                if kind == "commit":
                    await stubs.commit(held.reservation_id, amount - 1, tenant=tenant)
                elif kind == "release":
                    await stubs.release(held.reservation_id, tenant=tenant)
            case kind:
                await stubs.quota.CheckAndConsume(
                    quota_pb2.CheckAndConsumeRequest(
                        tenant_id=tenant, items=[item], operation_id=name
                    )
                )
                if kind == "refund":
                    await stubs.quota.Refund(
                        quota_pb2.RefundRequest(
                            tenant_id=tenant,
                            event_id=f"{name}:0",
                            amount=1,
                            operation_id=f"back-{name}",
                        )
                    )

    async def ingest(self) -> int:
        """Ingest some of what waits; return how many entries."""
        parts = IngestParts(
            RedisUsageStream(self.redis, StreamOptions(SHARDS, "ingester")),
            PostgresLedger(self.postgres),
            ProtobufEventEncoder(),
            SystemClock(),
        )
        options = IngestOptions(entries_max=20, reads_max=1, block_ms=1, claim_every_ms=0)
        return (await Ingest(parts, options).run_once()).entries

    async def drain(self) -> None:
        """Ingest all that waits."""
        while await self.ingest():
            pass

    async def plant(self, tenant: str, name: str, value: str, account: str = "") -> None:
        """Write over a counter."""
        shard = shard_of(TenantId("org" if tenant == "team" else tenant), SHARDS)
        key = keys.account(shard, await self.epoch(shard), AccountId(account or tenant))
        await self.redis.hset(key, name, value)

    async def stored(self, tenant: str, name: str, account: str = "") -> str:
        """Return a counter as it is stored."""
        shard = shard_of(TenantId("org" if tenant == "team" else tenant), SHARDS)
        key = keys.account(shard, await self.epoch(shard), AccountId(account or tenant))
        found = await self.redis.hget(key, name)
        assert isinstance(found, bytes), name
        return found.decode()

    async def epoch(self, shard: int) -> str:
        """Return a shard's epoch."""
        found = await self.redis.hget(keys.meta(shard), "epoch")
        assert isinstance(found, bytes)
        return found.decode()


async def applied(postgres: Postgres, text: str) -> None:
    """Have Postgres know a document, too."""
    store = PostgresCatalogStore(postgres)
    await Apply(store, YamlCatalogDocuments(), SystemClock()).document(text, ApplyOptions())


async def no_wait(_seconds: float) -> None:
    """Let others run, and go on."""
    await asyncio.sleep(0)


@pytest.fixture
async def system(redis_url: str, postgres_dsn: str) -> AsyncIterator[System]:
    """A family of two tenants and a third, with limits of every kind that the ledger can tell."""
    text = document(plans={"every": {"limits": list(EVERY)}}, tenants=TENANTS)
    postgres = Postgres(postgres_dsn)
    await applied(postgres, text)
    async with live(redis_url, text) as on:
        parts = CounterParts(
            reads=RedisCounterReads(on.redis, SHARDS),
            stages=RedisCounterStages(on.redis, SHARDS),
            snapshots=PostgresAuditSnapshots(postgres),
            declared=Declarations(PostgresCatalogStore(postgres), None),
            clock=SystemClock(),
            shards=SHARDS,
            wait=no_wait,
        )
        yield System(on, on.redis, postgres, CounterAudit(parts))
    await postgres.close()


async def test_what_is_in_flight_is_no_difference(system: System) -> None:
    """Nothing ingested, some of it, all of it: counters agree with ledger and stream each time."""
    await system.use(60)
    found = await system.findings()
    assert (found.differences, found.unverified) == ((), ())
    assert found.in_flight > 30
    assert found.compared >= 3 * 3 + 2
    await system.ingest()
    assert (await system.findings()).differences == ()
    await system.drain()
    found = await system.findings()
    assert (found.differences, found.in_flight) == ((), 0)


async def test_under_load_nothing_differs(system: System) -> None:
    """While calls and ingest go on, each look finds both sides alike."""

    async def load() -> None:
        while not system.stopped:
            await system.call()

    async def ingesting() -> None:
        while not system.stopped:
            await system.ingest()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load()), group.create_task(ingesting())]
        for _ in range(ROUNDS):
            before = system.number
            while system.number < before + 20:
                await asyncio.sleep(0)
            assert (await system.findings()).differences == ()
        system.stopped = True
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("ingested", [True, False], ids=["at rest", "in flight"])
@pytest.mark.parametrize("off", [1, -1])
async def test_a_unit_in_a_counter_is_found(system: System, off: int, ingested: bool) -> None:
    """One unit more or less, in a window, a window per value, a bucket or a hold, is named."""
    await system.use(60)
    if ingested:
        await system.drain()
    planted = {}
    for name, account, what in (
        ("monthly/month", "", "monthly"),
        ("users/day", "lone user=a", "users user=a"),
        ("jobs/held", "", "jobs"),
    ):
        at, amount, mark = (await system.stored("lone", name, account)).split(":")
        await system.plant("lone", name, f"{at}:{int(amount) + off}:{mark}", account)
        planted[what] = int(amount)
    parts = (await system.stored("lone", "hour/s60000000"))[1:].split(",")
    # Calls of two minutes lie in two buckets, of which one may have nothing left to take.
    used = {place: int(units) for place, _, units in (each.partition("=") for each in parts)}
    most = max(used, key=lambda place: used[place])
    changed = used | {most: used[most] + off}
    text = ",".join(f"{place}={units}" for place, units in changed.items())
    await system.plant("lone", "hour/s60000000", f"s{text}")
    planted["hour"] = sum(used.values())
    found = (await system.findings()).differences
    named = {each.what: (each.check, each.tenant_id, each.expected, each.found) for each in found}
    assert named == {
        what: (Check.COUNTER, "lone", units, units + off) for what, units in planted.items()
    }


async def test_a_parents_counter_counts_what_is_below(system: System) -> None:
    """The topmost tenant's counter is held against the usage of the whole family."""
    await system.use(60)
    await system.drain()
    at, amount, mark = (await system.stored("org", "monthly/month")).split(":")
    await system.plant("org", "monthly/month", f"{at}:{int(amount) + 1}:{mark}")
    (found,) = (await system.findings()).differences
    assert (found.tenant_id, found.what, found.found) == ("org", "monthly", int(amount) + 1)
    for tenant, differing in (("org", 1), ("team", 0), ("lone", 0)):
        asked = await system.audit.compare(TenantId(tenant), lambda _: None)
        assert len(asked.differences) == differing


async def test_a_counter_that_nobody_used_is_found(system: System) -> None:
    """Units in a counter of a tenant that the ledger has never heard of are a difference."""
    await system.use(20)
    at = (await system.stored("lone", "monthly/month")).split(":")[0]
    text = document(
        plans={"every": {"limits": list(EVERY)}}, tenants={**TENANTS, "new": {"plan": "every"}}
    )
    await system.apply(text)
    await system.plant("new", "monthly/month", f"{at}:1:0")
    (found,) = (await system.findings()).differences
    assert (found.tenant_id, found.expected, found.found) == ("new", 0, 1)


async def test_a_limit_younger_than_its_window_is_no_difference(system: System) -> None:
    """A limit that came in the middle of its window has counted from then on, and is said to."""
    await system.use(30)
    more = monthly(1_000_000, id="later")
    text = document(plans={"every": {"limits": [*EVERY, more]}}, tenants=TENANTS)
    await system.apply(text)
    await system.use(10)
    found = await system.findings()
    assert found.differences == ()
    assert found.young > 0


async def test_counters_that_are_being_rebuilt_are_not_verified(system: System) -> None:
    """A shard whose epoch is shut is named: nobody takes silence for a proof."""
    await system.use(10)
    shard = shard_of(TenantId("lone"), SHARDS)
    stages = RedisCounterStages(system.redis, SHARDS)
    await stages.renew(shard, await system.epoch(shard))
    found = await system.findings()
    assert found.unverified == (f"counters of shard {shard}: they are being rebuilt",)
    assert found.differences == ()
