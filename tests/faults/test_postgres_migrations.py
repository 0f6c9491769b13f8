"""A migrator is killed in the middle, and others run at once: the schema comes out whole."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tallygate.adapters.postgres import migrate as module
from tallygate.adapters.postgres.migrate import Migration, MigrationRefused, migrate, pending
from tests.faults.postgres_parts import waits
from tests.servers import connection, eventually

NAMES = [migration.name for migration in module.migrations()]
INTERRUPTED = "0004"
MIGRATOR = "tallygate-migrate"
RUN_S = 60


@asynccontextmanager
async def migrator(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the operator's command in a process of its own, killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tallygate", "migrate", "--postgres-dsn", dsn),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(dsn: str) -> tuple[int | None, str]:
    """Run the command to its end; return its status and what it said of errors."""
    async with migrator(dsn) as process:
        _, complaint = await asyncio.wait_for(process.communicate(), RUN_S)
    return process.returncode, complaint.decode()


@pytest.fixture
async def halfway(empty_postgres_dsn: str) -> str:
    """The address of a database that has only the first migrations."""
    with pytest.MonkeyPatch.context() as patch:
        before = [each for each in module.migrations() if each.name < INTERRUPTED]
        patch.setattr(module, "migrations", lambda: before)
        await migrate(empty_postgres_dsn)
    return empty_postgres_dsn


async def test_migrator_killed_in_the_middle(halfway: str) -> None:
    """What it had begun leaves no trace; two that run at once afterwards share what is left."""
    dsn = halfway
    async with connection(dsn) as admin:
        tables = "select count(*) from pg_class where relnamespace = 'tallygate'::regnamespace"
        had = await admin.fetchval(tables)
        stranger = admin.transaction()
        await stranger.start()
        # The migration has made tables by the time that it needs this lock.
        await admin.execute("lock table tallygate.usage_event in access exclusive mode")
        async with migrator(dsn):
            session = await waits(admin, "Lock", MIGRATOR)

        async def gone() -> bool:
            await admin.execute("select pg_stat_clear_snapshot()")
            found = "select count(*) from pg_stat_activity where pid = $1"
            return not await admin.fetchval(found, session)

        # The server sees that its client is gone, though the lock is still held.
        await eventually(gone, what="the end of the killed migrator's session")
        await stranger.rollback()
        assert await admin.fetchval(tables) == had
        assert await pending(dsn) == [name for name in NAMES if name >= INTERRUPTED]
        for status, complaint in await asyncio.gather(ended(dsn), ended(dsn)):
            assert status == 0, complaint
        assert await pending(dsn) == []
        marked = await admin.fetch("select name from tallygate.schema_migration order by name")
        assert [row["name"] for row in marked] == NAMES


async def test_migration_that_waits_for_long_gives_way(halfway: str) -> None:
    """A migration that cannot have its lock fails in time, and does not queue up the traffic."""
    async with connection(halfway) as admin:
        stranger = admin.transaction()
        await stranger.start()
        await admin.execute("lock table tallygate.usage_event in access exclusive mode")
        status, complaint = await ended(halfway)
        await stranger.rollback()
    assert status == 1
    assert "Other transactions were in the way" in complaint
    assert await pending(halfway) == [name for name in NAMES if name >= INTERRUPTED]


async def test_drift_is_refused_by_the_command(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checksum that differs stops migrator and doctor alike, and nothing is changed."""
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "update tallygate.schema_migration set checksum = 'drifted' where name = $1", NAMES[0]
        )
        later = Migration("9998_more", "create table tallygate.more ()")
        own = module.migrations()
        monkeypatch.setattr(module, "migrations", lambda: [*own, later])
        with pytest.raises(MigrationRefused, match=NAMES[0]):
            await migrate(postgres_dsn)
        assert await admin.fetchval("select to_regclass('tallygate.more')") is None
    status, complaint = await ended(postgres_dsn)
    assert status == 1
    assert NAMES[0] in complaint
