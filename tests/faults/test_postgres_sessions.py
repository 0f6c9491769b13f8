"""Sessions end, or stand in each other's way: what they did is done once, and none is leaked."""

import asyncio
import random

import asyncpg
import pytest

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.pool import (
    Contended,
    PoolExhausted,
    PoolOptions,
    Postgres,
    ReadOnly,
)
from tallygate.domain.errors import BackendUnavailable
from tallygate.ports import LedgerBatch
from tests.faults.postgres_parts import waits
from tests.faults.world import expected, world
from tests.servers import connection, eventually
from tests.usage_events import event, span

NO_REDIS = "redis://127.0.0.1:1"
CANCELLATIONS = 200


class Told:
    """Keeps the pool's last figures, and the highest."""

    def __init__(self) -> None:
        self.now = (0, 0)
        self.most = 0

    def used(self, lent: int, waiting: int) -> None:
        """Keep them."""
        self.now = (lent, waiting)
        self.most = max(self.most, lent)


def batch(first: int, last: int) -> LedgerBatch:
    """Return the events of these numbers, and the numbers."""
    events = tuple(event(number, amount=number) for number in range(first, last + 1))
    return LedgerBatch(events, ranges=(span(first, last),))


async def commits_wait(dsn: str, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Return once commits wait for a standby, some time after the server was told to have them."""
    async with connection(dsn) as session:
        pid = session.get_server_pid()

        async def waits_now() -> bool:
            await admin.execute("select pg_stat_clear_snapshot()")
            query = "select wait_event from pg_stat_activity where pid = $1"
            event: str | None = await admin.fetchval(query, pid)
            return event == "SyncRep"

        async def waited() -> bool:
            asked = asyncio.create_task(session.execute("insert into probe values (1)"))

            async def known() -> bool:
                return asked.done() or await waits_now()

            await eventually(known, what="a commit that is through, or waits")
            if asked.done():
                await asked
                return False
            await admin.execute("select pg_terminate_backend($1)", pid)
            with pytest.raises((asyncpg.PostgresError, ConnectionError)):
                await asked
            return True

        await eventually(waited, 30.0, what="a commit that waits for a standby")


async def test_killed_while_its_commit_is_confirmed(own_postgres: EmbeddedPostgres) -> None:
    """A session that ends after its commit, before it could say so, is tried again to no effect."""
    await migrate(own_postgres.dsn)
    async with world(NO_REDIS, own_postgres.dsn) as on, connection(own_postgres.dsn) as admin:
        ledger = PostgresLedger(on.postgres)
        await ledger.persist(batch(1, 10))
        await admin.execute("create table probe (number integer)")
        # A commit now waits, after it is written, for a standby that does not exist.
        await admin.execute("alter system set synchronous_standby_names = 'nobody'")
        await admin.execute("select pg_reload_conf()")
        await commits_wait(own_postgres.dsn, admin)
        unsure = asyncio.create_task(ledger.persist(batch(11, 30)))
        await admin.execute("select pg_terminate_backend($1)", await waits(admin, "SyncRep"))
        with pytest.raises(BackendUnavailable):
            await unsure
        await admin.execute("alter system reset synchronous_standby_names")
        await admin.execute("select pg_reload_conf()")
        assert await on.sums() == expected(30)
        again = await ledger.persist(batch(11, 30))
        assert (again.events, again.duplicates) == (0, 20)
        assert await on.sums() == expected(30)
        [progress] = await ledger.progress()
        assert (progress.contiguous_seq, progress.seen) == (30, 30)


async def test_killed_before_its_commit_is_written(postgres_dsn: str) -> None:
    """A session that ends within COMMIT, before that is written, leaves nothing behind."""
    async with world(NO_REDIS, postgres_dsn) as on, connection(postgres_dsn) as admin:
        ledger = PostgresLedger(on.postgres)
        await ledger.persist(batch(1, 10))
        # What is deferred runs within COMMIT, and waits there for a lock that the test holds.
        await admin.execute(
            "create function tallygate.dawdle() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock(4711); return null; end $$;"
            "create constraint trigger dawdle after insert on tallygate.usage_event"
            " deferrable initially deferred for each row execute function tallygate.dawdle()"
        )
        await admin.execute("select pg_advisory_lock(4711)")
        unsure = asyncio.create_task(ledger.persist(batch(11, 30)))
        await admin.execute("select pg_terminate_backend($1)", await waits(admin, "advisory"))
        with pytest.raises(BackendUnavailable):
            await unsure
        assert await on.sums() == expected(10)
        await admin.execute("select pg_advisory_unlock(4711)")
        again = await ledger.persist(batch(11, 30))
        assert (again.events, again.duplicates) == (20, 0)
        assert await on.sums() == expected(30)


async def test_deadlock_is_tried_again(postgres_dsn: str) -> None:
    """Of a deadlock with a stranger the ledger is the victim, and stores its batch all the same."""
    async with world(NO_REDIS, postgres_dsn) as on, connection(postgres_dsn) as admin:
        ledger = PostgresLedger(on.postgres)
        await ledger.persist(batch(1, 10))
        await _against_a_stranger(on.postgres, admin)
        await ledger.persist(batch(11, 30))
        assert await on.sums() == expected(30)


async def _against_a_stranger(
    postgres: Postgres, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Take the rollups' rows in the opposite order to the ledger, while it is at it."""
    await admin.execute("set deadlock_timeout = '1h'")
    stranger = admin.transaction()
    await stranger.start()
    await admin.execute("update tallygate.usage_day set count = count")
    stored = asyncio.create_task(PostgresLedger(postgres).persist(batch(5, 20)))
    await waits(admin, "transactionid")
    # The ledger finds the circle; it starts over, and waits until the stranger is done.
    await admin.execute("update tallygate.usage_minute set count = count")
    await stranger.commit()
    assert (await stored).events == 10


async def test_serialization_failures_are_tried_again(postgres_dsn: str) -> None:
    """Where every transaction must be serializable, writers of the same rows all end."""
    async with connection(postgres_dsn) as admin:
        name = await admin.fetchval("select current_database()")
        await admin.execute(
            f'alter database "{name}" set default_transaction_isolation = serializable'
        )
    async with world(NO_REDIS, postgres_dsn) as on:
        ledger = PostgresLedger(on.postgres)
        failed = 0

        async def write(first: int) -> None:
            nonlocal failed
            while True:
                try:
                    await ledger.persist(batch(first, first + 39))
                except Contended:
                    failed += 1
                else:
                    return

        async with asyncio.TaskGroup() as group:
            for first in range(1, 162, 20):
                group.create_task(write(first))
        assert await on.sums() == expected(200)


async def test_read_only_primary_is_told_and_left(postgres_dsn: str) -> None:
    """A Postgres that takes no writes is named so; its sessions are not lent again."""
    async with world(NO_REDIS, postgres_dsn) as on, connection(postgres_dsn) as admin:
        ledger = PostgresLedger(on.postgres)
        await ledger.persist(batch(1, 10))
        name = await admin.fetchval("select current_database()")
        await admin.execute(f'alter database "{name}" set default_transaction_read_only = on')
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and application_name = 'tallygate' and datname = current_database()"
        )

        async def told() -> bool:
            with pytest.raises(BackendUnavailable) as refused:
                await ledger.persist(batch(11, 30))
            return isinstance(refused.value, ReadOnly)

        await eventually(told, what="the refusal of a write")
        assert ReadOnly.transient
        await admin.execute("set default_transaction_read_only = off")
        await admin.execute(f'alter database "{name}" reset default_transaction_read_only')
        # A session keeps the default it began with, so this one is new.
        await ledger.persist(batch(11, 30))
        assert await on.sums() == expected(30)


async def test_exhausted_pool_is_told(postgres_dsn: str) -> None:
    """Who finds every connection lent, or too many waiting, is told so; nothing is leaked."""
    told = Told()
    options = PoolOptions(connections_max=2, waiting_max=1, acquire_timeout_ms=3_000)
    postgres = Postgres(postgres_dsn, options, told)
    async with postgres.connection() as one, postgres.connection() as other:
        assert told.now == (2, 0)
        waiting = asyncio.create_task(_one(postgres))
        await eventually(lambda: told.now == (2, 1), what="a caller that waits")
        with pytest.raises(PoolExhausted, match="too many"):
            await _one(postgres)
        with pytest.raises(PoolExhausted, match="in use"):
            await waiting
        assert PoolExhausted.transient
        assert await one.fetchval("select 1") + await other.fetchval("select 1") == 2
    assert told.now == (0, 0)
    assert await _one(postgres) == 1
    await postgres.close()


async def test_cancelled_callers_leak_no_connection(postgres_dsn: str) -> None:
    """Callers that are cancelled at any point leave every connection to those after them."""
    told = Told()
    postgres = Postgres(postgres_dsn, PoolOptions(connections_max=3), told)
    chance = random.Random(7)

    async def work() -> None:
        async with postgres.connection() as connection, connection.transaction():
            await connection.execute("select pg_sleep(0.002)")

    for _ in range(CANCELLATIONS):
        tasks = [asyncio.create_task(work()) for _ in range(4)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert told.now == (0, 0)
    assert told.most <= 3
    assert await asyncio.gather(*(_one(postgres) for _ in range(30))) == [1] * 30
    async with connection(postgres_dsn) as admin:
        sessions = await admin.fetchval(
            "select count(*) from pg_stat_activity"
            " where application_name = 'tallygate' and datname = current_database()"
        )
        assert sessions <= 3
    await postgres.close()


async def test_own_sessions_are_bounded_by_the_server(postgres_dsn: str) -> None:
    """A session names itself, and the server ends its statements, locks and idle transactions."""
    postgres = Postgres(postgres_dsn, PoolOptions(statement_timeout_ms=1_234))
    async with postgres.connection() as connection:
        names = [
            *("application_name", "statement_timeout", "lock_timeout"),
            "idle_in_transaction_session_timeout",
        ]
        shown = [await connection.fetchval(f"show {name}") for name in names]
    await postgres.close()
    assert shown == ["tallygate", "1234ms", "5s", "30s"]


async def _one(postgres: Postgres) -> int:
    async with postgres.connection() as connection:
        return int(await connection.fetchval("select 1"))
