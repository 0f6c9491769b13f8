"""The primary is lost under load, and its standby takes over."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.domain.errors import BackendUnavailable
from tallygate.flow.ingest import Ingest
from tallygate.flow.lag import completeness
from tests.faults.postgres_parts import either, replicating, standby_of
from tests.faults.world import World, expected, world
from tests.servers import connection, eventually

PROMOTION_S = 30


@pytest.fixture
async def standby(
    own_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedPostgres]:
    """A streaming replica of the test's own, migrated Postgres."""
    await migrate(own_postgres.dsn)
    async with standby_of(own_postgres, tmp_path_factory.mktemp("standby")) as server:
        yield server


async def ask_for_confirmation(primary: EmbeddedPostgres) -> None:
    """Have commits wait until a standby has them."""
    async with connection(primary.dsn) as admin:
        await admin.execute("alter system set synchronous_standby_names = '*'")
        await admin.execute("select pg_reload_conf()")
    await replicating(primary)


async def promote(standby: EmbeddedPostgres) -> None:
    """Make a standby the primary."""
    async with connection(standby.dsn) as admin:
        assert await admin.fetchval(f"select pg_promote(wait_seconds => {PROMOTION_S})")


async def keep_ingesting(on: World, done: asyncio.Event) -> int:
    """Run an ingester until told, over every failure; return how many rounds failed."""
    ingest = on.ingest("a", claim_idle_ms=0, entries_max=8, events_max=10)
    failed = 0
    while not done.is_set() or not await on.drained():
        try:
            await ingest.run_once()
        except BackendUnavailable:
            failed += 1
    return failed


async def drain(on: World, ingest: Ingest) -> None:
    """Run an ingester until nothing waits, over failures."""

    async def drained() -> bool:
        try:
            await ingest.run_once()
        except BackendUnavailable:
            return False
        return await on.drained()

    await eventually(drained, what="the stream's end")


async def test_failover_under_load_loses_nothing(
    redis_url: str, own_postgres: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """With a standby that confirms commits, the new primary has each event once; no restart."""
    await ask_for_confirmation(own_postgres)
    async with world(redis_url, either(own_postgres, standby)) as on:
        done = asyncio.Event()
        ingesting = asyncio.create_task(keep_ingesting(on, done))
        await on.fill(1, 400)

        async def some_stored() -> bool:
            return (await on.sums())[0] > 50

        await eventually(some_stored, what="the first part")
        await own_postgres.kill()
        await on.fill(401, 800)
        await promote(standby)
        await on.fill(801, 1_000)
        done.set()
        assert await ingesting > 0
        assert await on.sums() == expected(1_000)


async def test_former_primary_that_turned_standby_is_left(
    redis_url: str, own_postgres: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """A pool with sessions to a server that takes writes no longer finds the one that does."""
    async with world(redis_url, either(own_postgres, standby)) as on:
        ingest = on.ingest("a", claim_idle_ms=0)
        await on.fill(1, 20)
        await drain(on, ingest)
        # As a supervisor does: the former primary is fenced, but its sessions stay open.
        async with connection(own_postgres.dsn) as admin:
            where = await admin.fetchval("select pg_current_wal_lsn()")
            await admin.execute("alter system set default_transaction_read_only = on")
            await admin.execute("select pg_reload_conf()")
        async with connection(standby.dsn) as admin:

            async def caught_up() -> bool:
                return bool(await admin.fetchval("select pg_last_wal_replay_lsn() >= $1", where))

            await eventually(caught_up, what="the standby's replay")
        await promote(standby)
        await on.fill(21, 40)
        async with connection(own_postgres.dsn) as admin:

            async def fenced() -> bool:
                return bool(await admin.fetchval("show default_transaction_read_only") == "on")

            await eventually(fenced, what="the fence")

        await drain(on, ingest)
        async with connection(standby.dsn) as admin:
            assert await admin.fetchval("select count(*) from tallygate.usage_event") == 40


async def test_what_an_unconfirmed_failover_loses_is_seen(
    redis_url: str, own_postgres: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """Where commits waited for no standby, what the new primary lacks shows as incompleteness."""
    async with world(redis_url, either(own_postgres, standby)) as on:
        ingest = on.ingest("a", claim_idle_ms=0)
        await on.fill(1, 20)
        await drain(on, ingest)
        async with connection(standby.dsn) as admin:

            async def replayed() -> bool:
                count: int = await admin.fetchval("select count(*) from tallygate.usage_event")
                return count == 20

            await eventually(replayed, what="the replica of the first part")
            await admin.execute("alter system set primary_conninfo = ''")
            await admin.execute("select pg_reload_conf()")

            async def cut() -> bool:
                return not await admin.fetchval("select count(*) from pg_stat_wal_receiver")

            await eventually(cut, what="the end of replication")
        await on.fill(21, 40)
        await drain(on, ingest)
        ledger = PostgresLedger(on.postgres)
        accepted = {
            (each.source_id, each.source_lane): each.seen for each in await ledger.progress()
        }
        assert sum(accepted.values()) == 40
        await own_postgres.kill()
        await promote(standby)

        async def share() -> float:
            try:
                return completeness(accepted, await ledger.progress())
            except BackendUnavailable:
                return 0.0

        assert await eventually(share, what="the new primary") == 0.5
