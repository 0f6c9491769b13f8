"""Postgres is away while usage keeps coming: the streams keep it, the lag tells, and it drains."""

import asyncio

from prometheus_client import CollectorRegistry

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.prometheus.flows import IngestMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.errors import BackendUnavailable
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.lag import IngestWatch
from tallygate.ports import LedgerBatch, Persisted
from tests.faults.world import SystemClock, World, expected, world
from tests.servers import eventually

BEFORE = 200
MEANWHILE = 4_000
LAST = 4_200
DRAIN_S = 60


class OrderKept(PostgresLedger):
    """Keeps in what order each lane's numbers were stored."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres)
        self.stored: dict[int, list[int]] = {}

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store, and keep what was new."""
        persisted = await super().persist(batch)
        for event in batch.events:
            self.stored.setdefault(event.source_lane, []).append(event.source_seq)
        return persisted


class Installation:
    """An ingester and its watch, run over failures, with the metrics that operators see."""

    def __init__(self, on: World) -> None:
        self.ledger = OrderKept(on.postgres)
        self.failed = 0
        self._registry = CollectorRegistry()
        metrics = IngestMetrics(Metrics(self._registry, version="1"))
        parts = IngestParts(
            on.stream("a"), self.ledger, ProtobufEventEncoder(), SystemClock(), metrics
        )
        self._ingest = Ingest(parts, IngestOptions(block_ms=1, claim_every_ms=0, events_max=500))
        self._watch = IngestWatch(parts)

    async def once(self) -> None:
        """Run each a round."""
        for part in (self._ingest, self._watch):
            try:
                await part.run_once()
            except BackendUnavailable:
                self.failed += 1

    def figure(self, name: str) -> float:
        """Return a metric's value."""
        return self._registry.get_sample_value(f"tallygate_{name}") or 0.0


async def test_long_outage_under_load(redis_url: str, own_postgres: EmbeddedPostgres) -> None:
    """What came meanwhile waits in the streams and is stored in its order; the lag comes and goes.

    Scaled in time: four thousand events come while Postgres is away.
    """
    await migrate(own_postgres.dsn)
    async with world(redis_url, own_postgres.dsn) as on:
        here = Installation(on)
        await on.fill(1, BEFORE)

        async def drained() -> bool:
            await here.once()
            return await on.drained() and here.figure("ingest_lag_seconds") == 0

        await eventually(drained, what="the first part")
        await own_postgres.kill()
        coming = asyncio.create_task(on.fill(BEFORE + 1, BEFORE + MEANWHILE))
        seen: list[float] = []

        async def lag_rises() -> bool:
            await here.once()
            seen.append(here.figure("ingest_lag_seconds"))
            return coming.done() and seen[-1] > seen[len(seen) // 2] > 0

        await eventually(lag_rises, what="a lag that rises")
        await coming
        assert here.failed > 0
        depths = await on.stream("looks").depths()
        assert sum(depth.entries for depth in depths) == MEANWHILE // 2

        await own_postgres.start()
        await eventually(drained, DRAIN_S, what="the stream's end")
        assert await on.sums() == expected(LAST)
        for stored in here.ledger.stored.values():
            first_time = list(dict.fromkeys(stored))
            assert first_time == sorted(first_time)
