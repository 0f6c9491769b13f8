"""A backup is restored into a new cluster, as docs/backup.md says: nothing stalls or is resent."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.queries import query
from tests.faults.postgres_parts import socket_folder, tool
from tests.faults.world import World, expected, world
from tests.servers import connection, eventually

HOOK = "hook"
EVENTS = 200
# More than a restore takes in the new cluster.
AGE_IN_TRANSACTIONS = 5_000
COMMAND_TIMEOUT_S = 30


@pytest.fixture
async def restored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """A new, empty cluster."""
    async with EmbeddedPostgres(tmp_path_factory.mktemp("restored"), unsafe_fast=True) as server:
        yield server


async def contents(dsn: str) -> dict[str, str]:
    """Return a digest of each table, but for the transaction numbers of the outbox."""
    async with connection(dsn) as admin:
        tables = [
            row["name"]
            for row in await admin.fetch(
                "select relname as name from pg_class where relkind in ('r', 'p')"
                " and not relispartition and relnamespace = 'tallygate'::regnamespace"
            )
        ]
        assert len(tables) > 10
        return {
            table: await admin.fetchval(
                "select md5(coalesce(string_agg(line, '' order by line), '')) from"
                f" (select (to_jsonb(t) - 'xid')::text as line from tallygate.{table} t) as lines"
            )
            for table in tables
        }


async def live(on: World, server: EmbeddedPostgres) -> list[str]:
    """Give a cluster a past: events, and messages of which some are delivered and one is parked.

    Return the ids of those that are still to be sent.
    """
    async with connection(server.dsn) as admin:
        await admin.execute(
            f"do $$ begin for step in 1..{AGE_IN_TRANSACTIONS} loop"
            " perform pg_current_xact_id(); commit; end loop; end $$"
        )
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ($1, 'webhook', 'http://localhost', array['usage.batch'])",
            HOOK,
        )
    ingest = on.ingest("a", events_max=20)
    await on.fill(1, EVENTS)

    async def drained() -> bool:
        await ingest.run_once()
        return await on.drained()

    await eventually(drained, what="the stream's end")
    outbox = PostgresOutbox(on.postgres)
    parked, *sent = await outbox.claim(HOOK, 5, 60_000)
    await outbox.park(parked, "HTTP 410")
    assert await outbox.delivered(sent) == 4
    async with connection(server.dsn) as admin:
        rows = await admin.fetch(
            "select message_id from tallygate.delivery where state = 'pending'"
        )
    assert len(rows) >= 5
    return [str(row["message_id"]) for row in rows]


async def rehearse(old: EmbeddedPostgres, new: EmbeddedPostgres) -> None:
    """Dump one cluster and load the dump into the other, as the page on backups does."""
    dump = await tool(
        "pg_dump",
        *("--host", socket_folder(old.dsn), "--username", "postgres"),
        *("--format", "custom", "--schema", "tallygate", "tallygate"),
    )
    await tool(
        "pg_restore",
        *("--host", socket_folder(new.dsn), "--username", "postgres", "--dbname", "tallygate"),
        *("--exit-on-error", "--no-owner"),
        stdin=dump,
    )


async def rebase(server: EmbeddedPostgres) -> bytes:
    """Run the operator's command in a process of its own; return what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tallygate", "outbox", "rebase", "--json"),
        *("--postgres-dsn", server.dsn),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    assert process.returncode == 0
    return said


async def test_restore_into_a_new_cluster(
    redis_url: str, own_postgres: EmbeddedPostgres, restored: EmbeddedPostgres
) -> None:
    """All sums are those of the old cluster, tailing goes on, and what was sent is not resent."""
    await migrate(own_postgres.dsn)
    async with world(redis_url, own_postgres.dsn) as on:
        waiting = await live(on, own_postgres)
        sums = await on.sums()
        assert sums == expected(EVENTS)
        progress = await PostgresLedger(on.postgres).progress()
    before = await contents(own_postgres.dsn)

    await rehearse(own_postgres, restored)
    assert await contents(restored.dsn) == before
    assert await migrate(restored.dsn) == []
    async with connection(restored.dsn) as admin:
        stalled = await admin.fetch(query("outbox_tail"), "0", 0, 1_000)
        assert stalled == []
    said = await rebase(restored)
    assert b'"rebased": ' in said
    # What was done is in the audit log, and nowhere else.
    after = await contents(restored.dsn)
    changed = {table for table in after if after[table] != before[table]}
    assert changed == {"audit_log", "audit_head"}

    async with world(redis_url, restored.dsn) as on:
        assert await on.sums() == sums
        assert await PostgresLedger(on.postgres).progress() == progress
        await _goes_on(on, restored, waiting)


async def _goes_on(on: World, restored: EmbeddedPostgres, waiting: list[str]) -> None:
    """See that readers tail, relays send what was left, and ingesters add what is new."""
    upkeep = PostgresOutboxUpkeep(on.postgres)
    assert await upkeep.rebase() == 0
    async with connection(restored.dsn) as admin:
        total = await admin.fetchval("select count(*) from tallygate.outbox")
        old = await admin.fetch(query("outbox_tail"), "0", 0, 10_000)
        assert len(old) == total
        place = old[-1]["seq"]
        # The stream gives out again what the dump has already, and some that is new.
        await on.fill(EVENTS - 49, EVENTS + 50)
        ingest = on.ingest("b")

        async def drained() -> bool:
            await ingest.run_once()
            return await on.drained()

        await eventually(drained, what="the stream's end")
        assert await on.sums() == expected(EVENTS + 50)
        new = await admin.fetch(query("outbox_tail"), "0", place, 10_000)
        assert len(new) > 0
        assert not {row["id"] for row in new} & {row["id"] for row in old}
        assert await upkeep.gate_lag_s() == 0
    claimed = await PostgresOutbox(on.postgres).claim(HOOK, 1_000, 60_000)
    fresh = {str(row["id"]) for row in new}
    assert sorted(each.message_id for each in claimed) == sorted({*waiting, *fresh})


async def test_ledger_stays_append_only_after_a_restore(
    own_postgres: EmbeddedPostgres, restored: EmbeddedPostgres
) -> None:
    """The guards come with the dump: no event can be changed or removed."""
    await migrate(own_postgres.dsn)
    await rehearse(own_postgres, restored)
    async with connection(restored.dsn) as admin:
        for table in ("event_key", "usage_event"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await admin.execute(f"truncate tallygate.{table}")
