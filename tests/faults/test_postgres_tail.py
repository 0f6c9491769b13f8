"""Who tails the outbox by (xid, seq) behind the gate misses nothing, and what holds the gate shows.

By `seq` alone, or by `xid` alone, messages are missed: see the second test.
"""

import asyncio
import random
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.settings import Settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.servers import Databases, connection, eventually

HOOK = "hook"
WRITERS = 8
MESSAGES_EACH = 250
SLOW_COMMIT_S = 0.01
PAGE = 50


async def write(admin: "asyncpg.Connection[asyncpg.Record]") -> uuid.UUID:
    """Write one message, as a ledger transaction does; return its id."""
    message = uuid.uuid4()
    columns = ([message], ["usage"], ["b"], ["t"], [b"{}"], [None])
    await admin.execute(query("outbox_insert"), *columns)
    return message


class Tail:
    """Reads on from where it was."""

    def __init__(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._admin = admin
        self._place = ("0", 0)
        self.seen: list[uuid.UUID] = []

    async def read(self) -> int:
        """Read a page; return how many messages it had."""
        rows = await self._admin.fetch(query("outbox_tail"), *self._place, PAGE)
        if rows:
            self._place = (rows[-1]["xid"], rows[-1]["seq"])
        self.seen += [row["id"] for row in rows]
        return len(rows)


async def test_tail_beside_slow_commits(postgres_dsn: str) -> None:
    """Eight writers, one commit in ten slow, some in subtransactions: none lost, none twice."""
    written: list[uuid.UUID] = []
    chance = random.Random(19)

    async def writer() -> None:
        async with connection(postgres_dsn) as admin:
            for _ in range(MESSAGES_EACH):
                async with admin.transaction():
                    if chance.random() < 0.2:
                        async with admin.transaction():
                            written.append(await write(admin))
                    else:
                        written.append(await write(admin))
                    if chance.random() < 0.1:
                        await admin.execute("select pg_sleep($1)", SLOW_COMMIT_S)

    async with connection(postgres_dsn) as admin:
        tail = Tail(admin)
        writing = asyncio.gather(*(writer() for _ in range(WRITERS)))
        while not writing.done():
            await tail.read()
        await writing

        async def caught_up() -> bool:
            # Other tests' databases are on the same cluster, and hold the gate now and then.
            await tail.read()
            return len(tail.seen) >= len(written)

        await eventually(caught_up, what="the last message")
        assert await tail.read() == 0
    assert len(tail.seen) == len(set(tail.seen)) == WRITERS * MESSAGES_EACH
    assert set(tail.seen) == set(written)


async def test_late_commit_is_not_passed_over(postgres_dsn: str) -> None:
    """What was written first and committed last comes first; nothing comes before it."""
    async with AsyncExitStack() as stack:
        first, second, reader = [
            await stack.enter_async_context(connection(postgres_dsn)) for _ in range(3)
        ]
        slow = first.transaction()
        await slow.start()
        early = await write(first)
        late = await write(second)
        tail = Tail(reader)
        assert await reader.fetchval("select count(*) from tallygate.outbox") == 1
        assert await tail.read() == 0
        await slow.commit()

        async def both() -> bool:
            await tail.read()
            return len(tail.seen) == 2

        await eventually(both, what="both messages")
        assert tail.seen == [early, late]


async def test_older_transaction_that_writes_later(postgres_dsn: str) -> None:
    """A transaction that was older and numbered its message later is still read in its place."""
    async with AsyncExitStack() as stack:
        older, younger, reader = [
            await stack.enter_async_context(connection(postgres_dsn)) for _ in range(3)
        ]
        slow = older.transaction()
        await slow.start()
        await older.execute("select pg_current_xact_id()")
        ours = await write(younger)
        theirs = await write(older)
        await slow.commit()
        tail = Tail(reader)

        async def both() -> bool:
            await tail.read()
            return len(tail.seen) == 2

        await eventually(both, what="both messages")
        # By sequence the younger one's is first, by transaction the older one's.
        assert tail.seen == [theirs, ours]


async def test_numbers_are_ordered_as_numbers(postgres_dsn: str) -> None:
    """Transaction 99 comes before transaction 100, and is not read again after it."""
    async with connection(postgres_dsn) as admin:
        ids = [await write(admin) for _ in range(2)]
        for xid, message in zip(("99", "100"), ids, strict=True):
            # Far in the past of any cluster that has been migrated.
            await admin.execute(
                "update tallygate.outbox set xid = $1::text::xid8 where id = $2",
                *(xid, message),
            )
        tail = Tail(admin)
        while await tail.read():
            pass
        assert tail.seen == ids


async def test_idle_write_in_another_database_holds_readers_not_deliveries(
    postgres_dsn: str, databases: Databases, tmp_path: Path
) -> None:
    """A stranger's open write holds the gate of the whole cluster: a metric shows it."""
    elsewhere = databases.dsn(await databases.create())
    postgres = Postgres(postgres_dsn)
    upkeep, outbox = PostgresOutboxUpkeep(postgres), PostgresOutbox(postgres)
    async with connection(elsewhere) as stranger, connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ($1, 'webhook', 'http://localhost', array['t'])",
            HOOK,
        )
        idle = stranger.transaction()
        await idle.start()
        await stranger.execute("create table left_open ()")
        message = await write(admin)
        tail = Tail(admin)
        assert await tail.read() == 0
        assert await upkeep.gate_lag_s() > 0
        settings = Settings.model_validate(
            {"postgres_dsn": postgres_dsn, "ops_address": "127.0.0.1:0", "data_dir": tmp_path}
        )
        async with running(settings, frozenset({Role.RELAY})) as process:
            registry = process.metrics.registry

            def shown() -> float:
                return registry.get_sample_value("tallygate_outbox_gate_lag_seconds") or 0.0

            await eventually(shown, what="the gate's lag in the metrics")
        # Relays do not wait for it.
        claimed = await outbox.claim(HOOK, 10, 60_000)
        assert [each.message_id for each in claimed] == [str(message)]
        assert await outbox.delivered(claimed) == 1
        await idle.rollback()

        async def passed() -> bool:
            return await upkeep.gate_lag_s() == 0

        await eventually(passed, what="the end of the gate's lag")
        assert await tail.read() == 1
    await postgres.close()
