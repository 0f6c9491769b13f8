"""What the ledger and the outbox do holds directly and behind PgBouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.ports import LedgerBatch
from tallygate.ports.replay import ReplayQuery
from tests.faults.bouncer import FOUND, bouncing
from tests.faults.world import expected, world
from tests.servers import connection
from tests.usage_events import event, span

WAYS = ["direct", *(["pgbouncer"] if FOUND else [])]
WRITERS = 8
HOOK = "hook"


@pytest.fixture(params=WAYS)
async def way(
    request: pytest.FixtureRequest, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The address of a migrated database, by each way there is."""
    if request.param == "direct":
        yield postgres_dsn
        return
    assert FOUND is not None
    name = urlsplit(postgres_dsn).path.removeprefix("/")
    folder = tmp_path_factory.mktemp("bouncer")
    async with bouncing(FOUND, postgres_dsn, name, folder) as address:
        yield address


async def test_writers_share_sessions(way: str, postgres_dsn: str) -> None:
    """Eight writers of overlapping batches, over fewer sessions than writers, store each once."""
    postgres = Postgres(way, PoolOptions(connections_max=WRITERS))
    ledger = PostgresLedger(postgres)
    async with asyncio.TaskGroup() as group:
        for first in range(1, 162, 20):
            events = [event(number, amount=number) for number in range(first, first + 40)]
            batch = LedgerBatch(tuple(events), ranges=(span(first, first + 39),))
            group.create_task(ledger.persist(batch))
    async with world("redis://127.0.0.1:1", postgres_dsn) as on:
        assert await on.sums() == expected(200)
    [lane] = await ledger.progress()
    assert lane.contiguous_seq == 200
    await postgres.close()


async def test_cursor_and_leases_hold(way: str, postgres_dsn: str) -> None:
    """A replay reads through its cursor, and a lease taken by one session is ended by another."""
    postgres = Postgres(way)
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ($1, 'webhook', 'http://localhost', array['usage.batch'])",
            HOOK,
        )
    ledger, outbox = PostgresLedger(postgres), PostgresOutbox(postgres)
    await ledger.persist(LedgerBatch(tuple(event(number) for number in range(1, 101))))
    read = [
        each.event_id
        async for page in PostgresUsageReplay(postgres).events(ReplayQuery())
        for each in page
    ]
    assert len(read) == 100
    claims = await asyncio.gather(*(outbox.claim(HOOK, 1, 60_000) for _ in range(4)))
    claimed = [each for claim in claims for each in claim]
    assert len({each.message_id for each in claimed}) == len(claimed) > 0
    assert await outbox.delivered(claimed) == len(claimed)
    assert await PostgresOutboxUpkeep(postgres).rebase() == 0
    await postgres.close()
