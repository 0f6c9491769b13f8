"""A real Redis and a real ledger whose counters can be lost, driven step by step.

Owns how a copy of Redis' data is taken and put back. Refuses to know what is promised.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.corrections import PostgresCorrections
from tallygate.adapters.postgres.counted_usage import PostgresUsageSnapshots
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.decision import Mode, Operation, Outcome
from tallygate.domain.errors import TallygateError
from tallygate.domain.event import NO_CONTEXT, UsageEvent
from tallygate.domain.ids import EventId, OperationId, SourceId, TenantId, shard_of
from tallygate.domain.request import Item
from tallygate.flow.bind import Binder
from tallygate.flow.correct import Correct, CorrectOptions, CorrectParts
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.rebuild import Rebuild, RebuildOptions, RebuildParts
from tallygate.flow.recount import Recount
from tallygate.ports.epochs import Stage
from tests.builders import REQUESTS
from tests.flow.rebuild_parts import HARD, Plans, Told

SHARDS = 4
MEMORY_MS = 600_000
TIMEOUT_MS = 10_000
Copy = dict[bytes, bytes]


@dataclass
class LossWorld:
    """Sidecars' stores, an ingester, and who rebuilds."""

    client: Redis
    postgres: Postgres

    def __post_init__(self) -> None:
        self.clock, self.plans, self.told = SystemClock(), Plans(), Told()
        self.stages = RedisCounterStages(self.client, SHARDS)
        self.stream = RedisUsageStream(self.client, StreamOptions(SHARDS, "ingester"))
        self.seen = RedisSeenNumbers(self.client)
        self.store = self.sidecar("car")
        parts = IngestParts(
            self.stream,
            PostgresLedger(self.postgres),
            ProtobufEventEncoder(),
            self.clock,
            seen=self.seen,
        )
        self.ingest = Ingest(parts, IngestOptions(block_ms=1))
        ledger = PostgresRebuildLedger(self.postgres)
        rebuilder = self.sidecar("rebuild")
        self.rebuild = Rebuild(
            RebuildParts(
                ledger,
                self.stages,
                self.seen,
                self.stream,
                rebuilder,
                self.plans,
                self.clock,
                self.told,
            ),
            RebuildOptions("one", SHARDS, settle_ms=0, idle_ms=0),
        )
        self.correct = Correct(
            CorrectParts(
                PostgresCorrections(self.postgres),
                ledger,
                self.stages,
                self.stream,
                rebuilder,
                self.plans,
                self.clock,
                self.told,
            ),
            CorrectOptions("one", SHARDS, MEMORY_MS / 1000),
        )

    def sidecar(self, name: str) -> RedisQuotaStore:
        """Return the store of a process of its own."""
        options = StoreOptions(SourceId(name), SHARDS, MEMORY_MS, opens_new=False)
        return RedisQuotaStore(self.client, options)

    async def use(
        self, name: str, number: int, amount: int = 1, mode: Mode = Mode.RECORD
    ) -> Outcome | TallygateError:
        """Use units of a tenant, as one operation."""
        identity = OperationId(f"event-{number}")
        event = UsageEvent(
            EventId(identity), TenantId(name), REQUESTS, amount, 0, identity, NO_CONTEXT,
            {"user": f"u{number % 2}"},
        )  # fmt: skip
        lineage = self.plans.lineage(name)
        items = [Item(event.meter, amount, event.dimensions)]
        operation = Operation(
            mode,
            event.tenant_id,
            shard_of(lineage[-1].tenant_id, SHARDS),
            identity,
            f"{amount:032x}",
            Binder().charges(HARD, lineage, items, NO_CONTEXT, self.clock.now_us()),
            event_count=1,
            payload=ProtobufEventEncoder().encode([event]),
        )
        (outcome,) = await self.store.decide([operation])
        return outcome

    async def drain(self) -> None:
        """Bring all that is in the streams to the ledger."""
        while (await self.ingest.run_once()).entries:
            pass

    async def rebuilt(self, rounds: int = 20) -> None:
        """Rebuild until every shard is open; raise when that takes too many rounds."""
        for _ in range(rounds):
            await self.rebuild.run_once()
            await self.drain()
            states = await self.stages.states()
            if all(state.stage is Stage.OPEN for state in states):
                return
        raise AssertionError(f"still shut after {rounds} rounds: {self.told.waits}")

    async def copy(self) -> Copy:
        """Return all of Redis' data, as a replica that falls behind from now on has it."""
        found: Copy = {}
        async for key in self.client.scan_iter(count=1_000):
            found[key] = cast(bytes, await self.client.dump(key))
        return found

    async def put_back(self, copy: Copy) -> None:
        """Have Redis serve an old copy."""
        await self.client.flushall()
        for key, value in copy.items():
            await self.client.restore(cast(Any, key), 0, cast(Any, value))

    async def counters(self) -> dict[tuple[str, str], int]:
        """Return what every counter of a window holds, by account and field."""
        found: dict[tuple[str, str], int] = {}
        for shard, epoch in (await self.stages.epochs()).items():
            prefix = keys.account(shard, epoch, cast(Any, ""))
            async for key in self.client.scan_iter(match=f"{prefix}*", count=1_000):
                account = key.decode().removeprefix(prefix)
                fields = cast(dict[bytes, bytes], await self.client.hgetall(key))
                for name, text in fields.items():
                    if b"/" in name and int(text.split(b":")[1]):
                        found[account, name.decode()] = int(text.split(b":")[1])
        return found

    async def recounted(self) -> dict[tuple[str, str], int]:
        """Return what the counters would hold by the ledger alone."""
        now_us = self.clock.now_us()
        async with PostgresUsageSnapshots(self.postgres).snapshot() as usage:
            recount = Recount(usage, self.plans, HARD, shards=SHARDS, at_us=now_us)
            return {
                (each.account, charge.field): slots[0][1]
                async for part in recount.accounts()
                for each in part
                for charge, slots in zip(each.charges, each.slots, strict=True)
            }


@asynccontextmanager
async def loss_world(redis_url: str, dsn: str) -> AsyncIterator[LossWorld]:
    """Connect to both for the length of a block, with 24 events in the ledger."""
    client, postgres = connect(redis_url, TIMEOUT_MS), Postgres(dsn)
    try:
        world = LossWorld(client, postgres)
        await world.rebuilt()
        for number in range(24):
            await world.use(("acme", "child", "org")[number % 3], number, 1 + number, Mode.CONSUME)
        await world.drain()
        yield world
    finally:
        await client.aclose()
        await postgres.close()
