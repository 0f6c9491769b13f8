"""Several sidecars over one Redis, callers that keep at it, and what is counted and recorded.

Guarantees: every sidecar has a connection, a breaker and a backlog of its own, and every caller a
channel of its own. Refuses to know what befalls Redis.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

import grpc

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder, decode_entry
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.catalog import Limit
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.builders import ACME, SHARDS, CatalogInMemory, catalog
from tests.servers import connection, eventually
from tests.sidecar import Tuning, channel, charge, sidecar

HANG_MS: Final = 250
REDIS_TIMEOUT_MS: Final = 500
DEADLINE_S: Final = 1.0
RECOVERY_S: Final = 15.0
TENANT: Final = str(ACME)
UNANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Stub = quota_pb2_grpc.QuotaServiceStub
Reply = quota_pb2.CheckAndConsumeResponse


@dataclass(slots=True)
class Fleet:
    """Sidecars by their stubs; `granted` are the units of each operation answered with a grant."""

    url: str
    stubs: Sequence["quota_pb2_grpc.QuotaServiceAsyncStub"]
    granted: dict[str, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    async def ask(self, name: str, amount: int = 1, sidecar_of: int = 0) -> Reply | None:
        """Ask once, with a deadline; return None when there was no answer."""
        stub = self.stubs[sidecar_of % len(self.stubs)]
        try:
            reply = await stub.CheckAndConsume(charge(name, amount), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in UNANSWERED:
                raise
            self.answers["unanswered"] += 1
            return None
        kind = "degraded" if reply.degraded else "decided"
        self.answers[f"{kind} {'grant' if reply.allowed else 'refusal'}"] += 1
        if reply.allowed:
            self.granted[name] = amount
        return reply

    async def insist(self, name: str, sidecar_of: int = 0) -> Reply:
        """Ask by the same id until there is an answer."""
        while True:
            reply = await self.ask(name, 1, sidecar_of)
            if reply is not None:
                return reply
            # As the pushback of an unavailable store asks, but for less long.
            await asyncio.sleep(0.05 * (1 + sidecar_of % 3))

    @property
    def units(self) -> int:
        """The units of all grants."""
        return sum(self.granted.values())

    async def used(self) -> int | None:
        """Return what the counters hold, None while they cannot be read."""
        try:
            reply = await self.stubs[0].GetQuota(
                quota_pb2.GetQuotaRequest(tenant_id=TENANT), timeout=DEADLINE_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() not in UNANSWERED:
                raise
            return None
        return reply.limits[0].used

    async def settle(self) -> None:
        """Wait until all that was granted is counted, and hold the counter to just that."""

        async def counted() -> bool:
            return (await self.used() or 0) >= self.units

        await eventually(counted, RECOVERY_S, what="the counter")
        assert await self.used() == self.units

    async def events(self) -> dict[str, int]:
        """Return the amount of each event in the streams; none may be there twice."""
        client = connect(self.url, 10_000)
        try:
            found: Counter[str] = Counter()
            amounts: dict[str, int] = {}
            for shard in range(SHARDS):
                entries = cast(
                    list[tuple[bytes, dict[bytes, bytes]]], await client.xrange(keys.stream(shard))
                )
                for id_, fields in entries:
                    for event in decode_entry(shard, id_.decode(), fields).events:
                        found[event.event_id] += 1
                        amounts[event.event_id] = event.amount
        finally:
            await client.aclose()
        assert not [name for name, times in found.items() if times > 1]
        return amounts


@asynccontextmanager
async def fleet(url: str, limits: Sequence[Limit], count: int = 1) -> AsyncIterator[Fleet]:
    """Start so many sidecars with these limits."""
    view = CatalogInMemory(catalog(*limits))
    async with AsyncExitStack() as stack:
        stubs = []
        for number in range(count):
            tuned = Tuning(
                source=f"s{number}",
                hang_ms=HANG_MS,
                redis_timeout_ms=REDIS_TIMEOUT_MS,
            )
            address = await stack.enter_async_context(sidecar(url, view, tuned))
            stubs.append(
                quota_pb2_grpc.QuotaServiceStub(await stack.enter_async_context(channel(address)))
            )
        started = Fleet(url, stubs)
        # Of each, so that none is cold when Redis goes.
        for number in range(count):
            await started.ask(f"warm-{number}", 1, number)
        yield started


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[None]:
    """Stop the process where it is: it holds its connections and answers nothing."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def ledger_of(url: str, dsn: str) -> tuple[int, int]:
    """Drain the streams into the ledger; return how many events it has, and their sum."""
    client, postgres = connect(url, 10_000, connections_max=8), Postgres(dsn)
    try:
        stream = RedisUsageStream(client, StreamOptions(SHARDS, "drain"))
        parts = IngestParts(stream, PostgresLedger(postgres), ProtobufEventEncoder(), SystemClock())
        ingest = Ingest(parts, IngestOptions(block_ms=1, claim_every_ms=0))

        async def drained() -> bool:
            await ingest.run_once()
            return not any(depth.entries for depth in await stream.depths())

        await eventually(drained, RECOVERY_S, what="the streams in the ledger")
        async with connection(dsn) as admin:
            row = await admin.fetchrow(
                "select count(*), coalesce(sum(amount), 0)::bigint from tallygate.usage_event"
            )
        assert row is not None
        return row[0], row[1]
    finally:
        await client.aclose()
        await postgres.close()
