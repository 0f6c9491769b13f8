"""Ingesters die, servers go away, entries come twice: the ledger has each event once."""

import asyncio
import sys
from pathlib import Path

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.redis import keys
from tallygate.domain.errors import BackendUnavailable
from tallygate.ports import LedgerBatch
from tests.faults.world import SHARDS, World, expected, world
from tests.servers import connection, eventually
from tests.usage_events import SOURCE, event

ROOT = Path(__file__).parents[2]


async def drain(on: World, consumer: str, **options: int) -> None:
    """Run an ingester until nothing waits, over errors of servers that come back."""
    ingest = on.ingest(consumer, **options)

    async def empty() -> bool:
        try:
            await ingest.run_once()
        except BackendUnavailable:
            return False
        return await on.drained()

    await eventually(empty, 30, what="the stream's end")


async def test_ingester_killed_between_commit_and_acknowledgement(
    redis_url: str, postgres_dsn: str
) -> None:
    """Another process takes over what a killed one had committed, and stores nothing twice."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 40)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.faults.ingest_process", redis_url, postgres_dsn, "dies"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            said = await asyncio.wait_for(process.stdout.readline(), 30)
        finally:
            process.kill()
            await process.wait()
        assert said == b"committed\n"
        stored, *_ = await on.sums()
        assert 0 < stored < 40
        assert not await on.drained()
        await drain(on, "heir", claim_idle_ms=0)
        assert await on.sums() == expected(40)
        seen = sum(each.seen for each in await PostgresLedger(on.postgres).progress())
        assert seen == 40


async def test_ingesters_share_shards_and_take_over(redis_url: str, postgres_dsn: str) -> None:
    """Three ingesters at once, one of which left its entries behind, store each event once."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 300)
        left = await on.stream("dead").read(30, 1)
        assert len(left) == 30
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c"):
                group.create_task(drain(on, name, claim_idle_ms=0, entries_max=16, events_max=10))
        assert await on.sums() == expected(300)


async def test_redelivery_stores_nothing_twice(redis_url: str, postgres_dsn: str) -> None:
    """Entries that were appended twice, and a group that starts over, add nothing."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 20)
        await on.fill(1, 20)
        ingest = on.ingest("a")
        await ingest.run_once()
        await on.fill(11, 30)
        for shard in range(SHARDS):
            await on.client.xgroup_destroy(keys.stream(shard), "ledger")
        await drain(on, "a")
        assert await on.sums() == expected(30)


async def test_redis_killed_and_restarted(own_redis: EmbeddedRedis, postgres_dsn: str) -> None:
    """What Redis had synced is ingested when it is back, by the ingester that was running."""
    async with world(own_redis.url, postgres_dsn) as on:
        await on.client.config_set("appendfsync", "always")
        await on.fill(1, 20)
        ingest = on.ingest("a", entries_max=4, reads_max=1, claim_idle_ms=0)
        await ingest.run_once()
        await own_redis.kill()
        with pytest.raises(BackendUnavailable):
            await ingest.run_once()
        await own_redis.start()
        await drain(on, "a", claim_idle_ms=0)
        assert await on.sums() == expected(20)


async def test_redis_that_lost_everything(redis_url: str, postgres_dsn: str) -> None:
    """A Redis that comes back empty gets its group again, and new entries are read."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 10)
        ingest = on.ingest("a")
        await ingest.run_once()
        await on.client.flushall()
        await on.fill(11, 20)
        await ingest.run_once()
        assert await on.sums() == expected(20)
        assert await on.drained()


async def test_postgres_connections_cut(redis_url: str, postgres_dsn: str) -> None:
    """Connections that the server ends cost a retry and nothing else."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 10)
        ingest = on.ingest("a", claim_idle_ms=0)
        await ingest.run_once()
        await on.fill(11, 30)
        async with connection(postgres_dsn) as admin:
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'tallygate' and datname = current_database()"
            )
        await drain(on, "a", claim_idle_ms=0)
        assert await on.sums() == expected(30)


async def test_poison_among_good_events(redis_url: str, postgres_dsn: str) -> None:
    """An event that Postgres can never hold ends as a dead letter; the stream goes on."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 10)
        await on.client.xadd(
            keys.stream(0), {"t": "1", "s": SOURCE, "e": "e", "u11+1": b"\x0a\x04\x0a\x02a\x00"}
        )
        await on.client.xadd(keys.stream(1), {"t": "1", "s": SOURCE, "e": "e", "u12+1": b"\xff"})
        await drain(on, "a")
        assert (await on.sums()) == expected(10)
        async with connection(postgres_dsn) as admin:
            rows = await admin.fetch(
                "select reason, source_seq from tallygate.dead_letter order by source_seq"
            )
        assert [tuple(row) for row in rows] == [("UNSTORABLE", 11), ("MALFORMED_PAYLOAD", 12)]


async def test_writers_of_the_same_rows_do_not_deadlock(postgres_dsn: str) -> None:
    """Eight writers of overlapping batches, in any order, all end, with each event once."""
    async with world("redis://127.0.0.1:1", postgres_dsn) as on:
        ledger = PostgresLedger(on.postgres)
        async with asyncio.TaskGroup() as group:
            for writer in range(8):
                numbers = range(1, 201) if writer % 2 else range(200, 0, -1)
                events = [event(number, amount=number) for number in numbers]
                for part in range(0, 200, 50):
                    batch = LedgerBatch(tuple(events[part : part + 100]))
                    group.create_task(ledger.persist(batch))
        assert await on.sums() == expected(200)
